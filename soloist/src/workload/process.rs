//! Processes by an identity that cannot be reused: PID and start time, within one boot.
