//! IAM Identity Center: registered clients, device authorizations that wait for a user, and tokens.
//!
//! The device flow is that of RFC 8628: a client gets a device code for itself and a user code for the user,
//! and polls until the user has entered the user code. There is one user and one role, so a token only proves
//! a sign-in. Time comes in as an argument.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::random;

/// Why a client gets no token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SignInError {
    /// The client is not registered, or its secret is wrong.
    Client,
    /// The code has expired.
    Expired,
    /// The code or token is unknown, used, or belongs to another client.
    Grant,
    /// The user has not entered the code yet.
    Pending,
    /// No random bytes are available.
    Internal,
}

/// A client's id and secret.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    pub(crate) expires: SystemTime,
}

/// The device code of a client and the user code.
#[derive(Clone, Debug)]
pub(crate) struct DeviceCodes {
    pub(crate) device_code: String,
    pub(crate) user_code: String,
}

/// The tokens of a completed sign-in.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub(crate) access: String,
    pub(crate) life: Duration,
    /// Only for clients that have registered with a scope.
    pub(crate) refresh: Option<String>,
}

/// The state of Identity Center.
#[derive(Debug, Default)]
pub(crate) struct IdentityCenter {
    /// Device authorizations are approved without a user.
    approves: bool,
    /// The clients by id.
    clients: BTreeMap<String, Client>,
    /// The device authorizations by device code.
    devices: BTreeMap<String, Device>,
    /// When each access token expires.
    access: BTreeMap<String, SystemTime>,
    /// The client id of each refresh token.
    refresh: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Client {
    secret: String,
    expires: SystemTime,
    has_scope: bool,
}

#[derive(Debug)]
struct Device {
    client_id: String,
    user_code: String,
    expires: SystemTime,
    approved: bool,
}

impl IdentityCenter {
    pub(super) fn new(approves: bool) -> Self {
        Self { approves, ..Self::default() }
    }

    /// Registers a client.
    pub(crate) fn register(&mut self, has_scope: bool, now: SystemTime) -> Result<Registration, SignInError> {
        let (client_id, client_secret, expires) = (secret::<16>()?, secret::<96>()?, now + CLIENT_LIFE);
        let client = Client { secret: client_secret.clone(), expires, has_scope };
        self.clients.insert(client_id.clone(), client);
        Ok(Registration { client_id, client_secret, expires })
    }

    /// Starts a device authorization.
    pub(crate) fn authorize_device(
        &mut self,
        client_id: &str,
        client_secret: &str,
        now: SystemTime,
    ) -> Result<DeviceCodes, SignInError> {
        self.check_client(client_id, client_secret, now)?;
        let codes = DeviceCodes { device_code: secret::<64>()?, user_code: user_code()? };
        let device = Device {
            client_id: client_id.to_owned(),
            user_code: codes.user_code.clone(),
            expires: now + DEVICE_LIFE,
            approved: self.approves,
        };
        self.devices.insert(codes.device_code.clone(), device);
        Ok(codes)
    }

    /// Approves the device authorization with this user code; `false` if no authorization has it.
    pub(crate) fn approve(&mut self, user_code: &str, now: SystemTime) -> bool {
        let waiting = |device: &&mut Device| device.user_code == user_code && now < device.expires;
        let device = self.devices.values_mut().find(waiting);
        device.map(|device| device.approved = true).is_some()
    }

    /// The tokens for a device code that the user has approved. It works once.
    pub(crate) fn device_tokens(
        &mut self,
        client_id: &str,
        client_secret: &str,
        device_code: &str,
        now: SystemTime,
    ) -> Result<Tokens, SignInError> {
        let has_scope = self.check_client(client_id, client_secret, now)?.has_scope;
        let device = self.devices.get(device_code).filter(|device| device.client_id == client_id);
        let device = device.ok_or(SignInError::Grant)?;
        if device.expires <= now {
            return Err(SignInError::Expired);
        }
        if !device.approved {
            return Err(SignInError::Pending);
        }
        self.devices.remove(device_code);
        self.tokens(client_id, has_scope, now)
    }

    /// New tokens for a refresh token, which a new one replaces.
    pub(crate) fn refreshed_tokens(
        &mut self,
        client_id: &str,
        client_secret: &str,
        token: &str,
        now: SystemTime,
    ) -> Result<Tokens, SignInError> {
        self.check_client(client_id, client_secret, now)?;
        if self.refresh.get(token).is_none_or(|owner| owner != client_id) {
            return Err(SignInError::Grant);
        }
        self.refresh.remove(token);
        self.tokens(client_id, true, now)
    }

    /// Whether this is an access token that has not expired.
    pub(crate) fn accepts(&self, token: &str, now: SystemTime) -> bool {
        self.access.get(token).is_some_and(|expires| now < *expires)
    }

    /// Deletes an access token.
    pub(crate) fn sign_out(&mut self, token: &str) {
        self.access.remove(token);
    }

    /// Deletes all access tokens.
    pub(super) fn expire(&mut self) {
        self.access.clear();
    }

    fn check_client(&self, id: &str, secret: &str, now: SystemTime) -> Result<&Client, SignInError> {
        let client = self.clients.get(id).filter(|client| client.secret == secret && now < client.expires);
        client.ok_or(SignInError::Client)
    }

    fn tokens(&mut self, client_id: &str, refreshable: bool, now: SystemTime) -> Result<Tokens, SignInError> {
        let life = if refreshable { REFRESHABLE_LIFE } else { ACCESS_LIFE };
        let access = format!("aoa{}", secret::<128>()?);
        self.access.insert(access.clone(), now + life);
        let refresh = if refreshable { Some(format!("aor{}", secret::<128>()?)) } else { None };
        if let Some(refresh) = &refresh {
            self.refresh.insert(refresh.clone(), client_id.to_owned());
        }
        Ok(Tokens { access, life, refresh })
    }
}

impl From<io::Error> for SignInError {
    fn from(_: io::Error) -> Self {
        Self::Internal
    }
}

fn secret<const BYTES: usize>() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    random(&mut bytes)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// `BCDF-GHJK`: no vowels, as RFC 8628 recommends, so that no words occur.
fn user_code() -> io::Result<String> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    let mut code: String = bytes.iter().map(|byte| char::from(CONSONANTS[usize::from(byte % 20)])).collect();
    code.insert(4, '-');
    Ok(code)
}

const CONSONANTS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// The 90 days of `clientSecretExpiresAt`.
const CLIENT_LIFE: Duration = Duration::from_secs(90 * 24 * 60 * 60);
/// The `expiresIn` of StartDeviceAuthorization.
pub(crate) const DEVICE_LIFE: Duration = Duration::from_secs(10 * 60);
/// The default duration of a session in the access portal.
const ACCESS_LIFE: Duration = Duration::from_secs(8 * 60 * 60);
/// The life of a token that can be refreshed: the session is checked every hour.
const REFRESHABLE_LIFE: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
    }

    /// A client with or without a scope, and its device.
    fn waiting(identity_center: &mut IdentityCenter, has_scope: bool) -> (Registration, DeviceCodes) {
        let client = identity_center.register(has_scope, start()).unwrap();
        let codes =
            identity_center.authorize_device(&client.client_id, &client.client_secret, start()).unwrap();
        (client, codes)
    }

    fn poll(
        identity_center: &mut IdentityCenter,
        client: &Registration,
        codes: &DeviceCodes,
        now: SystemTime,
    ) -> Result<Tokens, SignInError> {
        identity_center.device_tokens(&client.client_id, &client.client_secret, &codes.device_code, now)
    }

    #[test]
    fn a_device_waits_for_its_user_and_is_served_once() {
        let mut identity_center = IdentityCenter::default();
        let (client, codes) = waiting(&mut identity_center, false);
        assert_eq!(poll(&mut identity_center, &client, &codes, start()).unwrap_err(), SignInError::Pending);
        assert!(!identity_center.approve("BCDF-GHJ", start()));
        assert!(identity_center.approve(&codes.user_code, start()));
        let tokens = poll(&mut identity_center, &client, &codes, start()).unwrap();
        assert!(identity_center.accepts(&tokens.access, start()));
        assert!(tokens.refresh.is_none());
        assert_eq!(poll(&mut identity_center, &client, &codes, start()).unwrap_err(), SignInError::Grant);
    }

    #[test]
    fn a_user_has_ten_minutes() {
        let mut identity_center = IdentityCenter::default();
        let (client, codes) = waiting(&mut identity_center, false);
        let late = start() + DEVICE_LIFE;
        assert!(!identity_center.approve(&codes.user_code, late));
        assert_eq!(poll(&mut identity_center, &client, &codes, late).unwrap_err(), SignInError::Expired);
    }

    #[test]
    fn an_access_token_expires_and_is_refreshed() {
        let mut identity_center = IdentityCenter::new(true);
        let (client, codes) = waiting(&mut identity_center, true);
        let first = poll(&mut identity_center, &client, &codes, start()).unwrap();
        let later = start() + first.life;
        assert!(identity_center.accepts(&first.access, later - Duration::from_nanos(1)));
        assert!(!identity_center.accepts(&first.access, later));
        let refresh = first.refresh.unwrap();
        let (id, secret) = (client.client_id.as_str(), client.client_secret.as_str());
        let second = identity_center.refreshed_tokens(id, secret, &refresh, later).unwrap();
        assert!(identity_center.accepts(&second.access, later));
        let again = identity_center.refreshed_tokens(id, secret, &refresh, later);
        assert_eq!(again.unwrap_err(), SignInError::Grant);
        assert!(identity_center.refreshed_tokens(id, secret, &second.refresh.unwrap(), later).is_ok());
    }

    #[test]
    fn a_client_has_its_own_secret_and_devices() {
        let mut identity_center = IdentityCenter::new(true);
        let (one, codes) = waiting(&mut identity_center, false);
        let (two, _) = waiting(&mut identity_center, false);
        assert_eq!(poll(&mut identity_center, &two, &codes, start()).unwrap_err(), SignInError::Grant);
        let wrong = identity_center.authorize_device(&one.client_id, &two.client_secret, start());
        assert_eq!(wrong.unwrap_err(), SignInError::Client);
        let expired =
            identity_center.authorize_device(&one.client_id, &one.client_secret, start() + CLIENT_LIFE);
        assert_eq!(expired.unwrap_err(), SignInError::Client);
    }
}
