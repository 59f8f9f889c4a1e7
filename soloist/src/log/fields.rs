//! What an event of the program says, for those who write lines as other programs do.

use std::fmt;

use tracing::Event;
use tracing::field::{Field, Visit};

/// The message, and what is beside it.
#[derive(Default)]
pub struct Fields {
    /// What it says.
    pub message: String,
    /// Names and values, in their order.
    pub others: Vec<(&'static str, String)>,
}

impl Fields {
    /// Those of `event`.
    pub fn of(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    fn take(&mut self, field: &Field, value: String) {
        if field.name() == "message" {
            self.message = value;
        } else {
            self.others.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.take(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }
}
