use super::*;

#[test]
fn jitter_only_shortens_and_by_a_tenth_at_most() {
    let interval = Duration::from_secs(5);
    assert_eq!(jittered(interval, 0), interval);
    for bits in [1, 1023, u64::MAX] {
        let jittered = jittered(interval, bits);
        assert!(jittered < interval && jittered > Duration::from_millis(4_500), "{jittered:?}");
    }
}
