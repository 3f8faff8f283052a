//! The program: hands the command line over, and turns the answer into an exit code.

fn main() -> std::process::ExitCode {
    ernstfall::cli::main()
}
