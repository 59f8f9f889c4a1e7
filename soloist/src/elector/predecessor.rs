//! Which activation was before the own one: that of the record which the acquiring write replaced.

use election::{Activation, Claim, Input, Record, Seen, Version};

/// Remembers what was read last, and over what each acquiring write was sent.
#[derive(Default)]
pub(super) struct Predecessor {
    seen: Option<(Version, Activation)>,
    /// The own activation that was written last, and the one before it.
    latest: Option<(Activation, Option<Activation>)>,
}

impl Predecessor {
    /// An input that may be a look at the lock.
    pub(super) fn note(&mut self, input: &Input) {
        if let Input::Read(Ok(Seen { version, record, .. })) = input {
            self.seen = record.as_ref().and_then(activation_in).map(|activation| (*version, activation));
        }
    }

    /// `record` is written over what stands at `expected`.
    pub(super) fn replaced(&mut self, expected: Version, record: &Record) {
        let Claim::Held(holder) = &record.claim else { return };
        let own = holder.activation;
        let before = self.seen.filter(|(version, _)| *version == expected).map(|(_, activation)| activation);
        match self.latest {
            // A renewal.
            Some((activation, _)) if activation == own && before.is_none_or(|before| before == own) => {}
            // Sent again over another record: which of the two writes takes effect is not known here.
            Some((activation, known)) if activation == own && known != before => self.latest = Some((own, None)),
            _ => self.latest = Some((own, before)),
        }
    }

    /// The activation before `own`, where it is known.
    pub(super) fn of(&self, own: Activation) -> Option<Activation> {
        self.latest.filter(|(activation, _)| *activation == own)?.1
    }
}

fn activation_in(record: &Record) -> Option<Activation> {
    match &record.claim {
        Claim::Held(holder) => Some(holder.activation),
        Claim::Released(release) => Some(release.activation),
        Claim::Vacant(_) | Claim::Foreign(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::contract::{held, released};

    const THREE: Version = Version { incarnation: 1, number: 3 };
    const FOUR: Version = Version { incarnation: 1, number: 4 };

    fn seen(version: Version, record: Option<Record>) -> Input {
        Input::Read(Ok(Seen { version, record, evidence: election::Evidence::None }))
    }

    #[test]
    fn it_is_whom_the_replaced_record_names() {
        for record in [held(1, 1), released(1)] {
            let mut predecessor = Predecessor::default();
            predecessor.note(&seen(THREE, Some(record)));
            predecessor.replaced(THREE, &held(2, 1));
            assert_eq!(predecessor.of(Activation(2)), Some(Activation(1)));
            assert_eq!(predecessor.of(Activation(3)), None);
            // Renewals replace what this member wrote itself.
            predecessor.note(&seen(FOUR, Some(held(2, 1))));
            predecessor.replaced(FOUR, &held(2, 2));
            assert_eq!(predecessor.of(Activation(2)), Some(Activation(1)));
        }
    }

    #[test]
    fn it_is_unknown_where_nobody_is_named_or_two_may_be() {
        let mut predecessor = Predecessor::default();
        predecessor.note(&seen(THREE, Some(held(1, 1))));
        predecessor.note(&seen(Version::ABSENT, None));
        predecessor.replaced(Version::ABSENT, &held(2, 1));
        assert_eq!(predecessor.of(Activation(2)), None);
        predecessor.note(&seen(THREE, Some(held(1, 1))));
        predecessor.replaced(FOUR, &held(3, 1));
        assert_eq!(predecessor.of(Activation(3)), None, "another version was read");
        predecessor.replaced(THREE, &held(4, 1));
        predecessor.note(&seen(FOUR, Some(released(9))));
        predecessor.replaced(FOUR, &held(4, 2));
        assert_eq!(predecessor.of(Activation(4)), None, "sent over two records");
    }
}
