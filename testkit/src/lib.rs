//! What soloist's process tests and its campaign are made of: a workload that stamps its life (`probe`), a checker that
//! finds two of them alive at once, and a harness that starts, ends and finds real members. And a simulator that runs
//! the same protocol on virtual time. Never shipped.
#![forbid(unsafe_code)]

pub mod answers;
pub mod audit;
pub mod client_go;
pub mod cluster;
pub mod consul;
pub mod consul_group;
pub mod consul_lock;
pub mod controlled;
pub mod documents;
pub mod ends;
pub mod executable;
pub mod group;
pub mod helm;
pub mod history;
pub mod http;
pub mod kubeconfig;
pub mod kubectl;
pub mod leader_elector;
pub mod lease_group;
pub mod listener;
pub mod member;
pub mod outage;
pub mod pods;
pub mod process;
pub mod quantiles;
pub mod relay;
pub mod relayed;
pub mod root;
pub mod routed;
pub mod scenario;
pub mod service;
pub mod sight;
pub mod sim;
pub mod sim_controller;
pub mod stamp;
pub mod statements;
pub mod steps;
pub mod terminal;
pub mod told;
pub mod traffic;
pub mod unit;
pub mod virtual_group;
pub mod wait;
pub mod warm;
