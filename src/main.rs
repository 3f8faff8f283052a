//! The program: hands the command line over, and turns the answer into an exit code.

fn main() -> std::process::ExitCode {
    if let Some(code) = ernstfall::scratch::hidden_subcommand() {
        return std::process::ExitCode::from(code as u8);
    }
    ernstfall::cli::main()
}
