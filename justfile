# Everything that must be green; CI runs the same file.
ci:
    .ci/run

# Formats the code.
fmt:
    cargo fmt --all

# Lints as the gate does.
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Runs the tests.
test *arguments:
    cargo test --workspace {{ arguments }}

# Measures: the protocol alone, then the whole tunnel beside the machine's limit and the other clients on PATH.
bench *sections:
    cargo bench -p ssm-channel --bench throughput
    cargo bench -p ssh_ec2 --bench tunnel -- {{ sections }}

# Builds `aws-ssm-bridge-pipe`, one of the other clients. Takes minutes.
bench-rival directory="target/rivals":
    cargo install --locked --path crates/ssh_ec2/benches/aws-ssm-bridge --root {{ directory }}

# Builds the documentation of our own crates.
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps

# Checks dependencies: known vulnerabilities, licences, duplicates. Needs cargo-deny and the network.
deny:
    cargo deny check

# Writes the bill of materials of the program for a target. Needs cargo-cyclonedx.
sbom target="x86_64-unknown-linux-gnu":
    cargo cyclonedx --manifest-path crates/ssh_ec2/Cargo.toml --format json --spec-version 1.5 \
        --describe binaries --no-build-deps --target {{ target }}

# Runs one fuzz target for a while. Needs nightly and cargo-fuzz; `agent_request` needs `--features agent`.
fuzz target seconds="60" *options:
    cargo +nightly fuzz run {{ options }} {{ target }} -- -max_total_time={{ seconds }}

# Installs the program for the current user.
install:
    cargo install --path crates/ssh_ec2 --locked
