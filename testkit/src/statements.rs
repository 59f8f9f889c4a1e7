//! What must hold on every store, said once for two members in their places.

pub mod ends;
pub mod network;
pub mod outage;

/// Makes a test of each statement, for one kind of pair: `state!(network, Pair: NAME, ...)`.
#[macro_export]
macro_rules! state {
    ($about:ident, $pair:ty: $($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() -> anyhow::Result<()> {
            $crate::statements::$about::$name::<$pair>()
        })*
    };
}
