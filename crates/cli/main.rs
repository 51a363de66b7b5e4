//! Reference verification and conversion for Qwen3.5-family checkpoints.
#![forbid(unsafe_code)]

mod arguments;
mod commands;
mod file;
mod listing;
mod oracles;
mod page;
mod quantize_page;
mod regression;
mod render;
mod report;

use std::io::{BufWriter, ErrorKind, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::commands::{Command, Outcome};
use crate::render::Style;

/// Activations come and go by the megabyte: the system's own allocator gives such memory back and takes it anew, zeroed
/// page by page, which costs a prefill a fifth of its time. Not in huge pages: most of them would stay half empty, a quarter of
/// what a token of a 4B model takes in all.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exact reference, verification and conversion for Qwen3.5-family checkpoints.
///
/// Exit status: 0 all is well, 1 a comparison failed, 2 an error.
#[derive(Parser)]
#[command(name = "etalon", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    json: bool,
}

/// An error, as opposed to a comparison that failed. Clap uses the same for arguments.
const ERROR: u8 = 2;
const FAILED: u8 = 1;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match check_kernels()
        .and_then(|()| cli.command.run(cli.json))
        .and_then(|outcome| print(&outcome, cli.json))
    {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {}", chain(&error)); // nowhere is left to report to
            ExitCode::from(ERROR)
        }
    }
}

/// An error and what caused it, unless its own words say that already.
fn chain(error: &anyhow::Error) -> String {
    error.chain().skip(1).fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        if text.contains(&cause) { text } else { format!("{text}: {cause}") }
    })
}

/// Prints as it goes: a reader that has seen enough (`| head`) is no error.
fn print(outcome: &Outcome, json: bool) -> anyhow::Result<u8> {
    let mut stdout = BufWriter::with_capacity(1 << 16, std::io::stdout().lock());
    let printed =
        if json { outcome.json(&mut stdout) } else { outcome.text(&Style::of_stdout(), &mut stdout) };
    match printed.and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(if outcome.failed() { FAILED } else { 0 }),
    }
}

/// Whoever forces kernels wants those or none.
fn check_kernels() -> anyhow::Result<()> {
    let Some(name) = std::env::var_os("ETALON_KERNELS") else { return Ok(()) };
    let known = eval::kernels();
    anyhow::ensure!(
        name.to_str().is_some_and(|name| known.contains(&name)),
        "ETALON_KERNELS is {name:?}; this processor can run {}",
        known.join(", ")
    );
    Ok(())
}
