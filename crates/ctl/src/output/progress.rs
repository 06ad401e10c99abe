// SPDX-License-Identifier: Apache-2.0
//! Progress of a pull or a load: a line per layer.
//!
//! On a terminal the lines of unfinished layers are drawn again in place;
//! finished ones at the top are left behind, so that more layers than the
//! terminal has rows do no harm. Elsewhere only what is final is a line.
//! Pure: gets messages, gives text; `command::pull` writes it.

use std::fmt::Write as _;

use berth::api::v1::{LayerProgress, layer_progress::Phase};

use super::human;
use crate::parse::reference::short_id;

/// Widest bar, in characters between the brackets.
const BAR_MAX: usize = 50;
/// Below this a bar says nothing, and numbers have to do.
const BAR_MIN: usize = 10;

/// Where progress goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A pipe or a file: final lines only.
    Lines,
    /// A terminal of this size.
    Live {
        /// Characters in a line.
        columns: usize,
        /// Lines on the screen.
        rows: usize,
    },
}

/// The state of all layers.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    layers: Vec<Layer>,
    /// Layers at the front that are finished and left behind.
    left_behind: usize,
    /// Lines above the cursor that the next frame draws over.
    drawn: usize,
    dirty: bool,
}

#[derive(Debug)]
struct Layer {
    digest: String,
    phase: Phase,
    current: u64,
    total: u64,
}

impl Layer {
    fn new(digest: &str) -> Self {
        Self { digest: digest.to_owned(), phase: Phase::Waiting, current: 0, total: 0 }
    }

    fn is_finished(&self) -> bool {
        matches!(
            self.phase,
            Phase::Complete | Phase::Exists | Phase::Pushed | Phase::AlreadyThere | Phase::Mounted
        )
    }
}

impl Progress {
    /// Nothing known yet.
    #[must_use]
    pub fn new(style: Style) -> Self {
        Self { style, layers: Vec::new(), left_behind: 0, drawn: 0, dirty: false }
    }

    /// The layers that there will be, in the order of the manifest.
    pub fn expect(&mut self, digests: &[String]) {
        for digest in digests {
            if !self.layers.iter().any(|layer| layer.digest == *digest) {
                self.layers.push(Layer::new(digest));
                self.dirty = true;
            }
        }
    }

    /// Takes in news of a layer. Answers with the line to print now, for a
    /// pipe; a terminal waits for [`Self::draw`].
    pub fn update(&mut self, news: &LayerProgress) -> Option<String> {
        let index = self.layers.iter().position(|layer| layer.digest == news.digest).unwrap_or_else(|| {
            self.layers.push(Layer::new(&news.digest));
            self.layers.len() - 1
        });
        let layer = &mut self.layers[index];
        let was_finished = layer.is_finished();
        layer.phase = news.phase();
        layer.current = news.current;
        layer.total = news.total;
        self.dirty = true;
        (self.style == Style::Lines && layer.is_finished() && !was_finished).then(|| line(layer, 0) + "\n")
    }

    /// The next frame for a terminal; `None` when nothing has changed.
    pub fn draw(&mut self) -> Option<String> {
        let Style::Live { columns, rows } = self.style else { return None };
        if !std::mem::take(&mut self.dirty) {
            return None;
        }
        let mut frame = String::new();
        if self.drawn > 0 {
            // Writing to a string can't fail.
            let _ = write!(frame, "\x1b[{}A", self.drawn);
        }
        let pending = &self.layers[self.left_behind..];
        let finished = pending.iter().take_while(|layer| layer.is_finished()).count();
        // The cursor stands below the last line, which takes a row as well.
        let room = rows.saturating_sub(1).max(1);
        let shown = finished + (pending.len() - finished).min(room);
        for layer in &pending[..shown] {
            // The old text goes after the new is there: no flicker.
            let _ = write!(frame, "\r{}\x1b[K\n", cut(&line(layer, columns), columns));
        }
        frame.push_str("\x1b[J");
        self.left_behind += finished;
        self.drawn = shown - finished;
        Some(frame)
    }
}

/// A layer as one line; `columns` is 0 for a pipe.
fn line(layer: &Layer, columns: usize) -> String {
    let id = short_id(&layer.digest);
    match layer.phase {
        Phase::Unspecified | Phase::Waiting => format!("{id}: Waiting"),
        Phase::Downloading => measured(id, "Downloading", layer, columns),
        Phase::Extracting => measured(id, "Extracting", layer, columns),
        Phase::Complete => format!("{id}: Pull complete"),
        Phase::Exists => format!("{id}: Already exists"),
        Phase::Retrying => format!("{id}: Retrying"),
        Phase::Pushing => measured(id, "Pushing", layer, columns),
        Phase::Pushed => format!("{id}: Pushed"),
        Phase::AlreadyThere => format!("{id}: Layer already exists"),
        Phase::Mounted => format!("{id}: Mounted"),
    }
}

/// `<id>: Downloading [====>      ]  3.2MB/10MB`.
fn measured(id: &str, verb: &str, layer: &Layer, columns: usize) -> String {
    let current = human::size_precise(layer.current);
    if layer.total == 0 || layer.current > layer.total {
        return format!("{id}: {verb} {current:>8}");
    }
    let numbers = format!("{current:>8}/{}", human::size_precise(layer.total));
    let fixed = id.len() + verb.len() + numbers.len() + 7;
    let width = columns.saturating_sub(fixed).min(BAR_MAX);
    if width < BAR_MIN {
        return format!("{id}: {verb} {numbers}");
    }
    let part = u128::from(layer.current) * width as u128 / u128::from(layer.total);
    let full = usize::try_from(part).unwrap_or(width).min(width);
    format!("{id}: {verb} [{}>{}] {numbers}", "=".repeat(full), " ".repeat(width - full))
}

/// A line that wraps would be two, and the next frame too high by one.
fn cut(line: &str, columns: usize) -> &str {
    line.get(..columns).unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "sha256:aaaaaaaaaaaaaaaa";
    const B: &str = "sha256:bbbbbbbbbbbbbbbb";

    fn news(digest: &str, phase: Phase, current: u64, total: u64) -> LayerProgress {
        LayerProgress { digest: digest.into(), phase: phase.into(), current, total }
    }

    #[test]
    fn a_pipe_gets_what_is_final_once() {
        let mut progress = Progress::new(Style::Lines);
        progress.expect(&[A.into(), B.into()]);
        assert_eq!(progress.update(&news(A, Phase::Downloading, 1, 2)), None);
        assert_eq!(
            progress.update(&news(A, Phase::Complete, 2, 2)),
            Some("aaaaaaaaaaaa: Pull complete\n".into())
        );
        assert_eq!(progress.update(&news(A, Phase::Complete, 2, 2)), None);
        assert_eq!(
            progress.update(&news(B, Phase::Exists, 0, 0)),
            Some("bbbbbbbbbbbb: Already exists\n".into())
        );
        assert_eq!(progress.draw(), None);
    }

    #[test]
    fn a_terminal_is_drawn_over() {
        let mut progress = Progress::new(Style::Live { columns: 60, rows: 24 });
        progress.expect(&[A.into(), B.into()]);
        assert_eq!(
            progress.draw().expect("a frame"),
            "\raaaaaaaaaaaa: Waiting\x1b[K\n\rbbbbbbbbbbbb: Waiting\x1b[K\n\x1b[J"
        );
        assert_eq!(progress.draw(), None, "nothing has changed");
        assert_eq!(progress.update(&news(A, Phase::Downloading, 5_000_000, 10_000_000)), None);
        let frame = progress.draw().expect("a frame");
        assert!(frame.starts_with("\x1b[2A\raaaaaaaaaaaa: Downloading [====="), "{frame:?}");
        assert!(frame.contains(">") && frame.contains("]      5MB/10MB\x1b[K\n"), "{frame:?}");
    }

    #[test]
    fn finished_layers_are_left_behind() {
        let mut progress = Progress::new(Style::Live { columns: 60, rows: 24 });
        progress.expect(&[A.into(), B.into()]);
        progress.draw();
        progress.update(&news(A, Phase::Complete, 1, 1));
        progress.draw();
        progress.update(&news(B, Phase::Complete, 1, 1));
        assert_eq!(progress.draw().expect("a frame"), "\x1b[1A\rbbbbbbbbbbbb: Pull complete\x1b[K\n\x1b[J");
    }

    #[test]
    fn a_low_screen_never_scrolls_what_will_be_redrawn() {
        let mut progress = Progress::new(Style::Live { columns: 60, rows: 3 });
        let layers: Vec<String> = (0..10).map(|i| format!("sha256:{i:016}")).collect();
        progress.expect(&layers);
        assert_eq!(progress.draw().expect("a frame").matches('\n').count(), 2);
        for layer in &layers {
            progress.update(&news(layer, Phase::Complete, 0, 0));
        }
        assert_eq!(progress.draw().expect("a frame").matches("Pull complete").count(), 10);
    }

    #[test]
    fn bars_fit_their_line() {
        for columns in 0..130 {
            let layer = Layer {
                digest: A.into(),
                phase: Phase::Extracting,
                current: 123_456_789,
                total: 987_654_321,
            };
            let line = line(&layer, columns);
            assert!(line.len() <= columns.max(50), "{columns}: {line}");
        }
        let layer = Layer { digest: A.into(), phase: Phase::Extracting, current: 2048, total: 0 };
        assert_eq!(line(&layer, 80), "aaaaaaaaaaaa: Extracting  2.048kB");
        let layer = Layer { digest: A.into(), phase: Phase::Downloading, current: 10, total: 10 };
        assert!(line(&layer, 200).contains(&format!("[{}>]", "=".repeat(50))));
    }
}
