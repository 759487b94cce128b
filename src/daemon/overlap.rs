//! What becomes of a slot whose chain still runs. Decides only.
//!
//! | `overlap` | nothing runs | a run goes on, none waits | a run goes on, one waits |
//! |---|---|---|---|
//! | `skip` | begin | give up | give up |
//! | `queue` | begin | wait | give up |
//! | `replace` | begin | stop the run, wait | stop the run, wait instead of it |
//!
//! Slots that were missed together (`missed = all`) do not overlap one another: they follow each other, whatever the key says.

use crate::config::keys::Overlap;

/// What is to be done with a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Its run begins.
    Begin,
    /// It waits for the run to end.
    Wait,
    /// The run is stopped, whoever waits is given up, and this slot waits.
    Replace,
    /// It is given up.
    GiveUp,
}

/// Decides. `follows` says that it was missed together with a slot before it.
pub fn fate(overlap: Overlap, running: bool, waiting: usize, follows: bool) -> Fate {
    match overlap {
        _ if !running => Fate::Begin,
        _ if follows => Fate::Wait,
        Overlap::Skip => Fate::GiveUp,
        Overlap::Queue if waiting == 0 => Fate::Wait,
        Overlap::Queue => Fate::GiveUp,
        Overlap::Replace => Fate::Replace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(Overlap::Skip, [Fate::Begin, Fate::GiveUp, Fate::GiveUp])]
    #[case(Overlap::Queue, [Fate::Begin, Fate::Wait, Fate::GiveUp])]
    #[case(Overlap::Replace, [Fate::Begin, Fate::Replace, Fate::Replace])]
    fn the_table(#[case] overlap: Overlap, #[case] expected: [Fate; 3]) {
        assert_eq!([fate(overlap, false, 0, false), fate(overlap, true, 0, false), fate(overlap, true, 1, false)], expected);
        assert_eq!([fate(overlap, false, 0, true), fate(overlap, true, 9, true)], [Fate::Begin, Fate::Wait]);
    }
}
