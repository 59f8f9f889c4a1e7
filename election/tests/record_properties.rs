//! Ids of records: what is printed is read again, and nothing else is.

use election::{Activation, Attempt, Nonce, Proof};
use proptest::prelude::*;

/// Texts that look like an id, and some that nearly do.
fn nearly_an_id() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[0-9a-fA-F]{30,34}", "[0-9a-fA-F+ _x-]{32}", "[0-9+ -]{0,22}-[0-9a-fA-F +]{14,18}",]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_is_read_again(bits in any::<u128>(), count in any::<u64>(), random in any::<u64>()) {
        prop_assert_eq!(Activation::parse(&Activation(bits).to_string()), Some(Activation(bits)));
        prop_assert_eq!(Nonce::parse(&Nonce(bits).to_string()), Some(Nonce(bits)));
        let attempt = Attempt { count, random };
        prop_assert_eq!(Attempt::parse(&attempt.to_string()), Some(attempt));
    }

    #[test]
    fn what_is_read_has_only_digits(text in nearly_an_id()) {
        let is_hex = |text: &str, digits: usize| text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
        let expected = if is_hex(&text, 32) { u128::from_str_radix(&text, 16).ok() } else { None };
        prop_assert_eq!(Activation::parse(&text), expected.map(Activation));
        prop_assert_eq!(Nonce::parse(&text), expected.map(Nonce));
        if let Some(attempt) = Attempt::parse(&text) {
            let (count, random) = text.split_once('-').unwrap_or_default();
            prop_assert!(is_hex(random, 16) && count.bytes().all(|b| b.is_ascii_digit()));
            prop_assert_eq!(count.parse(), Ok(attempt.count));
            prop_assert_eq!(u64::from_str_radix(random, 16), Ok(attempt.random));
        }
    }

    #[test]
    fn a_changed_character_is_another_id_or_none(
        bits in any::<u128>(), attempt in any::<(u64, u64)>(), at in any::<prop::sample::Index>(), other in any::<char>(),
    ) {
        let changed = |text: &str| {
            let mut characters: Vec<char> = text.chars().collect();
            let at = at.index(characters.len());
            let is_same = characters[at].eq_ignore_ascii_case(&other);
            characters[at] = other;
            (!is_same).then(|| characters.into_iter().collect::<String>())
        };
        let own = Activation(bits);
        if let Some(text) = changed(&own.to_string()) {
            prop_assert_ne!(Activation::parse(&text), Some(own));
        }
        let own = Attempt { count: attempt.0, random: attempt.1 };
        if let Some(text) = changed(&own.to_string()) {
            prop_assert_ne!(Attempt::parse(&text), Some(own));
        }
    }

    #[test]
    fn no_other_word_is_a_proof(word in any::<String>()) {
        prop_assert_eq!(Proof::parse(&word).is_some(), Proof::ALL.iter().any(|proof| proof.word() == word));
    }
}
