//! Draws what is wrong with a history: `draw HISTORY.jsonl > page.html`.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;

use kvorum_checker::{Limits, read_lines, serializable, timeline_page};

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("which history?")?;
    let history = read_lines(BufReader::new(File::open(path)?))?;
    let verdict = serializable(&history, Limits::default());
    eprintln!("{verdict}");
    let violation = verdict.violation().ok_or("nothing is wrong with it")?;
    print!("{}", timeline_page(violation));
    Ok(())
}
