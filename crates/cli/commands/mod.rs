//! One file a command: its arguments, whose comments are the help, and one call of the library.

mod bench;
mod check;
mod compare;
mod convert;
mod dump;
mod edit;
mod edit_safetensors;
mod inspect;
mod merge;
mod mock;
pub mod quantize;
mod run;
mod split;
mod verify;

use std::io::{self, Write};
use std::rc::Rc;

use crate::render::Style;
use crate::report::Only;

#[derive(clap::Subcommand)]
pub enum Command {
    Dump(dump::Args),
    Verify(verify::Args),
    Check(check::Args),
    Compare(compare::Args),
    Convert(convert::Args),
    Quantize(quantize::Args),
    Inspect(inspect::Args),
    Edit(edit::Args),
    Split(split::Args),
    Merge(merge::Args),
    Mock(mock::Args),
    Run(run::Args),
    Bench(bench::Args),
}

impl Command {
    /// `json`: nothing but the report is to be printed.
    pub fn run(self, json: bool) -> anyhow::Result<Outcome> {
        match self {
            Command::Dump(args) => args.run(),
            Command::Verify(args) => args.run(),
            Command::Check(args) => args.run(),
            Command::Compare(args) => args.run(),
            Command::Convert(args) => args.run(),
            Command::Quantize(args) => args.run(),
            Command::Inspect(args) => args.run(),
            Command::Edit(args) => args.run(),
            Command::Split(args) => args.run(),
            Command::Merge(args) => args.run(),
            Command::Mock(args) => args.run(),
            Command::Run(args) => args.run(json),
            Command::Bench(args) => args.run(),
        }
    }
}

type Text = dyn Fn(&Style, &mut dyn Write) -> io::Result<()>;
type Json = dyn Fn(&mut dyn Write) -> io::Result<()>;

/// What a command found, to be printed in one of two forms.
pub struct Outcome {
    text: Box<Text>,
    json: Box<Json>,
    failed: bool,
}

impl Outcome {
    /// All is well.
    fn fine<R: serde::Serialize + 'static>(report: R, text: fn(&R, &Style) -> String) -> Outcome {
        Outcome::new(report, false, text)
    }

    /// A comparison, passed or failed.
    fn judged(report: trace::Report, only: Only) -> Outcome {
        let failed = !report.passed;
        Outcome::new(report, failed, move |report, style| crate::report::text(report, only, style))
    }

    fn new<R: serde::Serialize + 'static>(
        report: R,
        failed: bool,
        text: impl Fn(&R, &Style) -> String + 'static,
    ) -> Outcome {
        let text = move |report: &R, style: &Style, out: &mut dyn Write| {
            out.write_all(text(report, style).as_bytes())
        };
        Outcome::streamed(report, failed, text)
    }

    /// What may be too long to be held at once: it is written as it is made.
    fn streamed<R: serde::Serialize + 'static>(
        report: R,
        failed: bool,
        text: impl Fn(&R, &Style, &mut dyn Write) -> io::Result<()> + 'static,
    ) -> Outcome {
        let report = Rc::new(report);
        let shared = Rc::clone(&report);
        Outcome {
            text: Box::new(move |style, out| text(&shared, style, out)),
            json: Box::new(move |out| {
                serde_json::to_writer_pretty(&mut *out, &*report)?;
                out.write_all(b"\n")
            }),
            failed,
        }
    }

    pub fn failed(&self) -> bool {
        self.failed
    }

    pub fn text(&self, style: &Style, out: &mut dyn Write) -> io::Result<()> {
        (self.text)(style, out)
    }

    pub fn json(&self, out: &mut dyn Write) -> io::Result<()> {
        (self.json)(out)
    }
}
