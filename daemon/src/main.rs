//! The command vsnd-bridge.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
