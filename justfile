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

# Builds the documentation of our own crates.
doc:
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps

# Checks dependencies: known vulnerabilities, licences, duplicates. Needs cargo-deny and the network.
deny:
    cargo deny check

# Compiles the fuzz targets.
fuzz-check:
    cargo check --manifest-path fuzz/Cargo.toml --no-default-features --features agent --target-dir target

# Runs one fuzz target for a while. Needs nightly and cargo-fuzz; `agent_request` needs `--features agent`.
fuzz target seconds="60" *options:
    cargo +nightly fuzz run {{ options }} {{ target }} -- -max_total_time={{ seconds }}

# Installs the program for the current user.
install:
    cargo install --path crates/ssh_ec2 --locked
