"""The identities that botocore finds, for the test in src/aws/credentials/identity/tests/differential.rs.

    oracle.py BOTOCORE_VERSION DIRECTORY < cases > answers

A case is a line of JSON: files, environment, the options --profile and --region. An answer is a line as well. A case
that comes with its answer is kept; a later line names a rule and its cases, in which the rule is broken until the
answer has differed often enough. No request is sent: each provider of credentials is replaced by a function that returns
a description of itself in the place of an access key. Variables are those of version 2 of the AWS CLI, which differs in
two lists from the botocore of PyPI (awscli/botocore/configprovider.py and awscli/clidriver.py in the branch v2 of
github.com/aws/aws-cli).
"""

import base64
import contextlib
import json
import os
import re
import sys
from unittest import mock

import botocore
import botocore.configloader as configloader
import botocore.configprovider as configprovider
import botocore.credentials as credentials
import botocore.exceptions as exceptions
import botocore.loaders
import botocore.session
import botocore.utils as utils

LATER = "2099-01-01T00:00:00Z"
SERVICES = ["ssm", "ec2-instance-connect", "ec2", "sts"]
# The paths of cases begin with it.
VIRTUAL = "/R/"


def describe(**what):
    return json.dumps(what, sort_keys=True)


def keys(description):
    return {"access_key": description, "secret_key": "s", "token": "t", "expiry_time": LATER, "account_id": None}


def response(description):
    granted = {"AccessKeyId": description, "SecretAccessKey": "s", "SessionToken": "t", "Expiration": LATER}
    return {"Credentials": granted}


def identity(frozen):
    """The description of the provider that gave these; real keys describe themselves."""
    if frozen.access_key.startswith("{"):
        return json.loads(frozen.access_key)
    return {"keys": frozen.access_key, "secret": frozen.secret_key, "token": frozen.token}


# ---- providers, replaced ----


def process(self, command):
    # An empty command, or one whose quotes are not closed, fails as it does in botocore.
    return keys(describe(process=credentials.compat_shell_split(command)))


def assume_role(self):
    told = self._assume_kwargs
    role = {
        "arn": told["RoleArn"],
        "session_name": None if self._using_default_session_name else told["RoleSessionName"],
        "external_id": told.get("ExternalId"),
        "mfa_serial": told.get("SerialNumber"),
        "duration_seconds": told.get("DurationSeconds"),
        "source": identity(self._source_credentials.get_frozen_credentials()),
    }
    return response(describe(role=role))


def web_identity(self):
    told = self._assume_kwargs
    web = {
        "token_file": self._web_identity_token_loader._web_identity_token_path,
        "role_arn": told["RoleArn"],
        "session_name": None if self._using_default_session_name else told["RoleSessionName"],
    }
    return response(describe(web_identity=web))


def single_sign_on(self):
    if self._token_provider:
        self._token_provider.load_token()
    sso = {
        "start_url": self._start_url,
        "region": self._sso_region,
        "account_id": self._account_id,
        "role_name": self._role_name,
        "session": self._sso_session_name if self._token_provider else None,
    }
    return response(describe(sso=sso))


def login(self):
    return keys(describe(login=self._session_name))


def container(self, full_url, headers=None):
    key = describe(container=True)
    return {"AccessKeyId": key, "SecretAccessKey": "s", "Token": "t", "Expiration": LATER}


def metadata(self):
    if self._disabled:
        return {}
    return {**keys(describe(metadata=self.get_base_url())), "role_name": "r"}


class RegionOfMachine(configprovider.BaseProvider):
    """Version 2 asks the metadata service last."""

    def __init__(self, session):
        self.session = session

    def provide(self):
        fetcher = utils.IMDSRegionProvider(self.session)._get_fetcher()
        return None if fetcher._disabled else "of-the-machine"


STUBS = [
    (credentials.ProcessProvider, "_retrieve_credentials_using", process),
    (credentials.AssumeRoleCredentialFetcher, "_get_credentials", assume_role),
    (credentials.AssumeRoleWithWebIdentityCredentialFetcher, "_get_credentials", web_identity),
    (credentials.SSOCredentialFetcher, "_get_credentials", single_sign_on),
    (credentials.LoginCredentialFetcher, "load_cached_credentials", login),
    (credentials, "EC", object()),
    (utils.ContainerMetadataFetcher, "retrieve_full_uri", container),
    (utils.InstanceMetadataFetcher, "retrieve_iam_role_credentials", metadata),
    # Each would load the system's certificates, although no request is sent.
    (utils.botocore.httpsession, "URLLib3Session", lambda **_: None),
]
VARIABLES = configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES
VARIABLES["profile"] = (None, ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"], None, None)


# ---- one case ----


class Oracle:
    def __init__(self, root):
        self.root = root
        self.loader = botocore.loaders.create_loader()
        self.written = []
        credentials.BotoProvider.DEFAULT_CONFIG_FILENAMES = [self.real("/etc/boto.cfg"), "~/.boto"]

    def real(self, path):
        if path.startswith(VIRTUAL):
            return os.path.join(self.root, path[len(VIRTUAL) :])
        return self.root + path if path == "/etc/boto.cfg" else path

    def answer(self, case, broken=None):
        for path in self.written:
            os.remove(path)
        self.written = [self.real(path) for path in case["files"]]
        for path, content in zip(self.written, case["files"].values()):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(base64.b64decode(content))
        os.environ.clear()
        os.environ.update({name: self.real(value) for name, value in case["env"].items()})
        rule = BREAKS[broken] if broken else contextlib.nullcontext
        try:
            with rule():
                found = self.found(case)
        except Exception as error:  # whatever botocore does is the answer
            found = {"error": failure(error)}
        return json.loads(json.dumps(found).replace(self.root + "/etc/", "/etc/").replace(self.root + "/", VIRTUAL))

    def session(self, case):
        session = botocore.session.Session(include_builtin_handlers=False)
        session.register_component("data_loader", self.loader)
        store = session.get_component("config_store")
        names = REGION_VARIABLES
        store.set_config_provider(
            "region",
            configprovider.ChainProvider(
                [configprovider.InstanceVarProvider("region", session)]
                + [configprovider.EnvironmentProvider(name, os.environ) for name in names]
                + [configprovider.ScopedConfigProvider("region", session), RegionOfMachine(session)]
            ),
        )
        # As CLIDriver._handle_top_level_args does it.
        if case["profile"]:
            session.set_config_variable("profile", case["profile"])
        if case["region"]:
            session.set_config_variable("region", case["region"])
        return session

    def found(self, case):
        """The steps of Session.create_client up to the client itself."""
        session = self.session(case)
        session.full_config
        with contextlib.suppress(exceptions.ProfileNotFound):
            session.get_component("credential_provider")
        region = session.get_config_variable("region")
        of_machine = region == "of-the-machine"
        utils.validate_region_name(region)
        session.get_config_variable("ca_bundle")
        found = session.get_credentials()
        session.get_auth_token()
        scoped = session.get_scoped_config()
        endpoints = {}
        for service in SERVICES:
            chain = configprovider.ConfiguredEndpointProvider(session.full_config, scoped, service)
            ignored = session.get_config_variable("ignore_configured_endpoint_urls")
            endpoints[service] = None if ignored else chain.provide()
        answer = {
            "region": None if of_machine else region,
            "region_of_machine": of_machine,
            "endpoints": endpoints,
            "fips": session.get_config_variable("use_fips_endpoint"),
            "dual_stack": session.get_config_variable("use_dualstack_endpoint"),
            "identity": identity(found.get_frozen_credentials()) if found else None,
        }
        if region == "":
            # The client would say that its endpoint is no URL.
            raise exceptions.InvalidRegionError(region_name="")
        if case.get("client") and region and not of_machine:
            # The steps above are those of botocore itself.
            client = self.session(case).create_client("ec2-instance-connect")
            endpoint = endpoints["ec2-instance-connect"]
            assert client.meta.region_name == region, client.meta.region_name
            assert not endpoint or client.meta.endpoint_url == endpoint, client.meta.endpoint_url
        return answer


REGION_VARIABLES = ["AWS_REGION", "AWS_DEFAULT_REGION"]

# What an error says, and the class that the test knows it by.
TEXTS = [
    ("both-sources", r'The profile "(.*)" contains both'),
    ("unknown-source", r'The credential source "(.*)" referenced in profile "(.*)" is not valid'),
    ("missing-source-profile", r'The source_profile "(.*)" referenced in the profile "(.*)" does not exist'),
    ("source-without-credentials", r'The source profile "(.*)" must have credentials'),
    ("missing-sso-session", r'The specified sso-session does not exist: "(.*)"'),
    ("missing-sso-session", r'The profile "(.*)" is configured .* but the "(.*)" sso_session configuration does not'),
    ("sso-conflict", r"The value for (\S+) is inconsistent"),
    ("sso-incomplete", r'The profile "(.*)" is configured to use SSO but is missing required configuration: (.*)'),
    ("sso-incomplete", r'The profile "(.*)" is configured to use the SSO token provider but is missing .*: (.*)\.'),
    ("web-identity-without-role", r"configured to assume role with web identity but has no role ARN"),
    ("missing-services", r'services section but the "(.*)" services configuration does not exist'),
    ("empty-source", r"from (\S+): No credentials found in credential_source referenced in profile (.*)"),
]


def failure(error):
    text = str(error)
    if isinstance(error, exceptions.ConfigParseError):
        return {"class": "syntax", "names": [error.kwargs["path"]]}
    if isinstance(error, exceptions.ProfileNotFound):
        return {"class": "unknown-profile", "names": [error.kwargs["profile"]]}
    if isinstance(error, exceptions.PartialCredentialsError):
        if error.kwargs["provider"] == "assume-role":
            return {"class": "no-source", "names": error.kwargs["cred_var"].split(" or ")}
        return {"class": "partial-key", "names": [error.kwargs["cred_var"]]}
    if isinstance(error, exceptions.InfiniteLoopConfigError):
        return {"class": "loop", "names": [error.kwargs["source_profile"]]}
    if isinstance(error, utils.InvalidIMDSEndpointModeError):
        return {"class": "metadata-mode", "names": [error.kwargs["mode"]]}
    if isinstance(error, exceptions.InvalidRegionError):
        return {"class": "bad-region", "names": [error.kwargs["region_name"]]}
    if isinstance(error, (exceptions.InvalidConfigError, exceptions.CredentialRetrievalError)):
        for name, pattern in TEXTS:
            if match := re.search(pattern, text, re.DOTALL):
                words = [word for group in match.groups() for word in split_list(group)]
                return {"class": name, "names": words}
    return {"class": "crash", "names": [], "text": f"{type(error).__name__}: {text}"}


def split_list(text):
    """The names of options in a list; anything else is one name."""
    words = re.findall(r"\w+", text)
    return words if words and all(word.startswith("sso_") for word in words) else [text]


# ---- rules, each broken in its turn ----


def parser(**changes):
    original = configloader.configparser.RawConfigParser

    class Parser(original):
        def __init__(self):
            super().__init__(**{key: value for key, value in changes.items() if key != "attributes"})
            for name, value in changes.get("attributes", {}).items():
                setattr(self, name, value)

    return lambda: mock.patch.object(configloader.configparser, "RawConfigParser", Parser)


def reading(change):
    """Changes the bytes of a file before they are parsed."""
    original = configloader.configparser.RawConfigParser

    class Parser(original):
        def read(self, paths, encoding=None):
            with open(paths[0], "rb") as file:
                self.read_string(change(file.read()))

    return lambda: mock.patch.object(configloader.configparser, "RawConfigParser", Parser)


def patched(target, name, value):
    return lambda: mock.patch.object(target, name, value)


def around(target, name, change):
    """Replaces a function by one that is handed the original."""
    original = getattr(target, name)
    return patched(target, name, lambda *args, **kwargs: change(original, *args, **kwargs))


def nothing(*args, **kwargs):
    return None


def without(*names):
    """Variables that are not read."""

    @contextlib.contextmanager
    def change():
        for name in names:
            os.environ.pop(name, None)
        yield

    return change


def renamed(old, new):
    """A variable that would be read in the place of another one."""

    @contextlib.contextmanager
    def change():
        if old in os.environ:
            os.environ[new] = os.environ.pop(old)
        yield

    return change


def unset_option(name):
    def change(original, self, case):
        return original(self, {**case, name: None})

    return around(Oracle, "session", change)


def universal(data):
    return data.decode().replace("\r\n", "\n").replace("\r", "\n")


def quietly(*classes):
    """An error that counts for no credentials."""

    def change(original, *args, **kwargs):
        try:
            return original(*args, **kwargs)
        except classes:
            return None

    return change


def quiet_text(pattern, instead=None):
    def change(original, *args, **kwargs):
        try:
            return original(*args, **kwargs)
        except (exceptions.BotoCoreError, ValueError) as error:
            if re.search(pattern, str(error)):
                return instead
            raise

    return change


def moved(first, second):
    """Two providers of a chain, changed about."""

    def change(original, self):
        chain = [provider.METHOD for provider in self.providers]
        if first in chain and second in chain:
            one, two = chain.index(first), chain.index(second)
            self.providers[one], self.providers[two] = self.providers[two], self.providers[one]
        return original(self)

    return around(credentials.CredentialResolver, "load_credentials", change)


def first_profile_wins(parsed):
    seen, kept = set(), {}
    for key, values in parsed.items():
        name = "default" if key == "default" else next(iter(configloader._parse_section(key, values)), key)
        if name not in seen:
            kept[key] = values
        seen.add(name)
    return kept


def profiles_without_prefix(original, parsed):
    built = original(parsed)
    for name, values in parsed.items():
        built["profiles"].setdefault(name, values)
    return built


def only_prefix(original, parsed):
    kinds = ("profile ", "sso-session ", "services ", 'profile\t"')
    kept = {key: values for key, values in parsed.items() if key == "default" or key.startswith(kinds)}
    return original(kept)


def config_wins(original, self):
    if self._config is None:
        built = original.fget(self)
        path = self.get_config_variable("config_file")
        with contextlib.suppress(exceptions.ConfigNotFound):
            for name, values in configloader.load_config(path)["profiles"].items():
                built["profiles"].setdefault(name, {}).update(values)
    return original.fget(self)


def lower_case_only(option):
    return option


def static_first(original, self, profile):
    return False


def option_dropped(option):
    """A profile's option that is not read."""

    def change(original, *args, **kwargs):
        built = original(*args, **kwargs)
        for profile in built["profiles"].values():
            profile.pop(option, None)
        return built

    return around(configloader, "build_profile_map", change)


def file_option_dropped(option):
    """The same, in either file."""

    def change(original, *args, **kwargs):
        parsed = original(*args, **kwargs)
        for section in parsed.values():
            section.pop(option, None)
        return parsed

    return around(configloader, "raw_config_parse", change)


def endpoint_order(*names):
    order = [f"environment_{name}" if name in ("service", "global") else name for name in names]
    return patched(configprovider.ConfiguredEndpointProvider, "_ENDPOINT_URL_LOOKUP_ORDER", order)


@contextlib.contextmanager
def profile_region_first():
    def change(original, self, case):
        session = original(self, case)
        store = session.get_component("config_store")
        providers = store.get_config_provider("region")._providers
        providers.insert(0, providers.pop(-2))
        return session

    with around(Oracle, "session", change)():
        yield


@contextlib.contextmanager
def machine_has_no_region():
    with mock.patch.object(RegionOfMachine, "provide", nothing):
        yield


def keep_env_keys(original, session, *args, **kwargs):
    resolver = original(session, *args, **kwargs)
    if "env" not in [provider.METHOD for provider in resolver.providers]:
        resolver.providers.insert(0, credentials.EnvProvider())
    return resolver


def half_is_nothing(original, self):
    return original(self) if self.environ.get("AWS_SECRET_ACCESS_KEY") else None


def secret_is_half(original, self):
    if self.environ.get("AWS_SECRET_ACCESS_KEY") and not self.environ.get("AWS_ACCESS_KEY_ID"):
        raise exceptions.PartialCredentialsError(provider="env", cred_var="AWS_ACCESS_KEY_ID")
    return original(self)


def missing_source_is_nothing(original, self):
    with contextlib.suppress(exceptions.InvalidConfigError):
        return original(self)
    return None


def any_case(original, self, name):
    return original(self, {"environment": "Environment"}.get(name.lower(), name))


def empty_counts(original, self):
    value = original(self)
    return None if value == "" else value


def session_ignored(original, self, config, sessions):
    return original(self, {k: v for k, v in config.items() if k != "sso_session"}, sessions)


def session_wins(original, self, config, sessions):
    session = sessions.get(config.get("sso_session"), {})
    return original(self, {**config, **session}, sessions)


def strict_session(original, self, config, sessions):
    if "sso_session" in config and "sso_start_url" in config:
        raise exceptions.InvalidConfigError(error_msg="The value for sso_start_url is inconsistent")
    return original(self, config, sessions)


def needs_both(original, self):
    profile = self._load_config().get("profiles", {}).get(self._profile_name, {})
    if not all(option in profile for option in self._PROFILE_REQUIRED_CONFIG_VARS):
        return None
    return original(self)


def no_mode(original, session):
    with contextlib.suppress(utils.InvalidIMDSEndpointModeError):
        return original(session)
    return "ipv4"


def file_tokens(*names):
    @contextlib.contextmanager
    def change():
        with mock.patch.object(credentials.SharedCredentialProvider, "TOKENS", list(names)):
            with mock.patch.object(credentials.ConfigProvider, "TOKENS", list(names)):
                yield

    return change


@contextlib.contextmanager
def no_expansion():
    with mock.patch.object(configloader.os.path, "expandvars", str):
        with mock.patch.object(configloader.os.path, "expanduser", str):
            yield


@contextlib.contextmanager
def swapped_regions():
    with mock.patch.dict(globals(), REGION_VARIABLES=REGION_VARIABLES[::-1]):
        yield


session_class = botocore.session.Session
BREAKS = {
    # How files are read.
    "deeper lines continue a value": reading(lambda data: "\n".join(x.strip() for x in universal(data).split("\n"))),
    "text after a header": parser(attributes={"SECTCRE": re.compile(r"\[(?P<header>[^\]]+)\]$")}),
    "a header ends at its last bracket": parser(attributes={"SECTCRE": re.compile(r"\[(?P<header>[^\]]+)\]")}),
    "semicolons begin comments": parser(comment_prefixes=("#",)),
    "hashes begin comments": parser(comment_prefixes=(";",)),
    "comments do not end a value": parser(inline_comment_prefixes=("#", ";")),
    "colons are delimiters": parser(delimiters=("=",)),
    "options have no case": parser(attributes={"optionxform": lower_case_only}),
    "nothing is there twice": parser(strict=False),
    "blank lines belong to values": parser(empty_lines_in_values=False),
    "[DEFAULT] is for all": parser(default_section="none"),
    "a byte order mark is no blank": reading(lambda data: universal(data.removeprefix(b"\xef\xbb\xbf"))),
    "a carriage return ends a line": reading(lambda data: data.decode().replace("\r\n", "\n").replace("\r", " ")),
    "text is UTF-8": reading(lambda data: universal(data.decode(errors="replace").encode())),
    "lines below an option are nested": around(configloader, "_parse_nested", lambda original, value: {}),
    "names are quoted": around(
        configloader,
        "_parse_section",
        lambda original, key, values: {key.split()[1]: values} if len(key.split()) == 2 else {},
    ),
    "names have any letter": around(
        configloader,
        "_parse_section",
        lambda original, key, values: original(key, values) if key.isascii() else {},
    ),
    "the last spelling wins": around(
        configloader, "build_profile_map", lambda original, parsed: original(first_profile_wins(parsed))
    ),
    "a header needs the word profile": around(configloader, "build_profile_map", profiles_without_prefix),
    "the word may have a tail": around(configloader, "build_profile_map", only_prefix),
    "the credentials file wins": patched(
        session_class,
        "full_config",
        property(lambda self, original=session_class.full_config: config_wins(original, self)),
    ),
    # Variables and options.
    "AWS_CONFIG_FILE": without("AWS_CONFIG_FILE"),
    "AWS_SHARED_CREDENTIALS_FILE": without("AWS_SHARED_CREDENTIALS_FILE"),
    "paths are expanded": no_expansion,
    "AWS_PROFILE": without("AWS_PROFILE"),
    "AWS_DEFAULT_PROFILE": without("AWS_DEFAULT_PROFILE"),
    "an empty profile is a name": around(configprovider.EnvironmentProvider, "provide", empty_counts),
    "--profile": unset_option("profile"),
    "--region": unset_option("region"),
    "AWS_REGION before AWS_DEFAULT_REGION": swapped_regions,
    "variables before the profile's region": profile_region_first,
    "the machine's region": machine_has_no_region,
    "a named profile exists": around(
        session_class, "get_scoped_config", lambda original, self: quietly(exceptions.ProfileNotFound)(original, self) or {}
    ),
    "--profile switches keys off": around(credentials, "create_credential_resolver", keep_env_keys),
    # Credentials.
    "keys in the environment": patched(credentials.EnvProvider, "load", nothing),
    "an id without a secret": around(credentials.EnvProvider, "load", half_is_nothing),
    "a secret without an id": around(credentials.EnvProvider, "load", secret_is_half),
    "tokens in the environment": patched(
        credentials.EnvProvider, "TOKENS", ["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"]
    ),
    "roles": patched(credentials.AssumeRoleProvider, "load", nothing),
    "a missing source profile": around(credentials.AssumeRoleProvider, "load", quiet_text("does not exist")),
    "a source without credentials": around(credentials.AssumeRoleProvider, "load", quiet_text("must have credentials")),
    "circles": around(credentials.AssumeRoleProvider, "load", quietly(exceptions.InfiniteLoopConfigError)),
    "two sources": around(credentials.AssumeRoleProvider, "load", quiet_text("contains both")),
    "no source": around(credentials.AssumeRoleProvider, "load", quietly(exceptions.PartialCredentialsError)),
    "named sources": around(
        credentials.CanonicalNameCredentialSourcer, "source_credentials", lambda original, self, name: None
    ),
    "unknown sources": around(credentials.AssumeRoleProvider, "load", quiet_text("is not valid")),
    "sources have a case": around(credentials.CanonicalNameCredentialSourcer, "is_supported", any_case),
    "an empty source": around(credentials.AssumeRoleProvider, "load", quiet_text("No credentials found in")),
    "keys before a source's role": around(credentials.AssumeRoleProvider, "_has_static_credentials", static_first),
    "a web identity is no role": patched(credentials.AssumeRoleProvider, "WEB_IDENTITY_TOKE_FILE_VAR", "none"),
    "role_session_name": option_dropped("role_session_name"),
    "external_id": option_dropped("external_id"),
    "mfa_serial": option_dropped("mfa_serial"),
    "duration_seconds": option_dropped("duration_seconds"),
    "web identity in a profile": option_dropped("web_identity_token_file"),
    "web identity in the environment": without("AWS_WEB_IDENTITY_TOKEN_FILE"),
    "AWS_ROLE_ARN": without("AWS_ROLE_ARN"),
    "AWS_ROLE_SESSION_NAME": without("AWS_ROLE_SESSION_NAME"),
    "a web identity needs a role": around(
        credentials.AssumeRoleWithWebIdentityProvider, "load", quiet_text("has no role ARN")
    ),
    "--profile switches web identity off": around(
        credentials.AssumeRoleWithWebIdentityProvider,
        "__init__",
        lambda original, self, *args, **kwargs: original(self, *args, **{**kwargs, "disable_env_vars": False}),
    ),
    "Identity Center": patched(credentials.SSOProvider, "load", nothing),
    "sso_session": around(credentials.SSOProvider, "_resolve_sso_session_reference", session_ignored),
    "a session may be repeated": around(credentials.SSOProvider, "_resolve_sso_session_reference", strict_session),
    "a session is not contradicted": around(credentials.SSOProvider, "_resolve_sso_session_reference", session_wins),
    "a session exists": around(credentials.SSOProvider, "load", quiet_text("sso-session does not exist")),
    "nothing is missing for Identity Center": around(
        credentials.SSOProvider, "load", quiet_text("missing required configuration")
    ),
    "half of Identity Center": around(credentials.SSOProvider, "_load_sso_config", needs_both),
    "a session is whole": patched(botocore.tokens.SSOTokenProvider, "load_token", nothing),
    "keys in the credentials file": patched(credentials.SharedCredentialProvider, "load", nothing),
    "keys in the config file": patched(credentials.ConfigProvider, "load", nothing),
    "half a key in a file": around(
        credentials.CredentialResolver, "load_credentials", quietly(exceptions.PartialCredentialsError)
    ),
    "tokens in a file": file_tokens("aws_session_token", "aws_security_token"),
    "login_session": option_dropped("login_session"),
    "credential_process": option_dropped("credential_process"),
    "Identity Center before keys": moved("sso", "shared-credentials-file"),
    "keys before login": moved("shared-credentials-file", "login"),
    "login before a process": moved("login", "custom-process"),
    "a process before the config file's keys": moved("custom-process", "config-file"),
    "web identity before Identity Center": moved("assume-role-with-web-identity", "sso"),
    "AWS_CREDENTIAL_FILE": without("AWS_CREDENTIAL_FILE"),
    "boto's file": patched(credentials.BotoProvider, "load", nothing),
    "a container": patched(credentials.ContainerProvider, "load", nothing),
    "a container before the machine": moved("container-role", "iam-role"),
    "the machine": patched(credentials.InstanceMetadataProvider, "load", nothing),
    "the machine is last": moved("shared-credentials-file", "iam-role"),
    "AWS_EC2_METADATA_DISABLED": without("AWS_EC2_METADATA_DISABLED"),
    "AWS_EC2_METADATA_SERVICE_ENDPOINT": without("AWS_EC2_METADATA_SERVICE_ENDPOINT"),
    "ec2_metadata_service_endpoint": option_dropped("ec2_metadata_service_endpoint"),
    "the mode of the metadata service": patched(credentials, "resolve_imds_endpoint_mode", lambda session: "ipv4"),
    "a mode that is none": around(credentials, "resolve_imds_endpoint_mode", no_mode),
    # Endpoints.
    "AWS_ENDPOINT_URL_…": endpoint_order("global", "config_service", "config_global"),
    "AWS_ENDPOINT_URL": without("AWS_ENDPOINT_URL"),
    "services": endpoint_order("service", "global", "config_global"),
    "endpoint_url": option_dropped("endpoint_url"),
    "a service's variable before the one of all": endpoint_order("global", "service", "config_service", "config_global"),
    "variables before services": endpoint_order("config_service", "config_global", "service", "global"),
    "services before endpoint_url": endpoint_order("service", "global", "config_global", "config_service"),
    "names of services": around(
        configprovider.ConfiguredEndpointProvider,
        "_get_snake_case_service_id",
        lambda original, self, name: name,
    ),
    "a services section exists": around(
        configprovider.ConfiguredEndpointProvider, "_get_services_config", quiet_text("services", {})
    ),
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": without("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"),
    "ignore_configured_endpoint_urls": option_dropped("ignore_configured_endpoint_urls"),
    "AWS_USE_FIPS_ENDPOINT": without("AWS_USE_FIPS_ENDPOINT"),
    "use_fips_endpoint": option_dropped("use_fips_endpoint"),
    "AWS_USE_DUALSTACK_ENDPOINT": without("AWS_USE_DUALSTACK_ENDPOINT"),
    "use_dualstack_endpoint": option_dropped("use_dualstack_endpoint"),
}


def sensitivity(oracle, kept, asked):
    tried = shows = 0
    for at in asked["in"]:
        tried += 1
        shows += oracle.answer(kept[at], asked["break"]) != kept[at]["whole"]
        if shows == asked["least"]:
            break
    return {"break": asked["break"], "tried": tried, "shows": shows}


def main():
    version, root = sys.argv[1:]
    if botocore.__version__ != version:
        sys.exit(f"botocore {version} is needed, and this is {botocore.__version__}")
    oracle = Oracle(root)
    with contextlib.ExitStack() as stack:
        for target, name, stub in STUBS:
            stack.enter_context(mock.patch.object(target, name, stub))
        answers = [json.dumps({"rules": list(BREAKS)})]
        kept = {}
        for line in sys.stdin:
            asked = json.loads(line)
            if "break" in asked:
                answers.append(json.dumps(sensitivity(oracle, kept, asked)))
            elif "whole" in asked:
                kept[asked["at"]] = asked
            else:
                answers.append(json.dumps({"at": asked["at"], "answer": oracle.answer(asked)}))
    print("\n".join(answers))


main()
