//! Who gets the traffic of Services, in two ways: by answers at their addresses, and by watches of what sends it there.

use std::cell::Cell;
use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::{LIMIT, NAMESPACE, Pods};
use crate::answers::{Manner, Sampler};
use crate::history::Span;
use crate::stamp;
use crate::traffic::View;

/// What some Services show, from here on.
#[derive(Debug)]
pub struct Traffic {
    samplers: Vec<(String, Sampler)>,
    views: Vec<View>,
    /// What was asked before this is checked.
    checked: Cell<u64>,
}

impl Traffic {
    /// Asks at port 80 of these Services from a node, and watches their slices.
    pub fn watch(pods: &Pods, node: &str, services: &[&str]) -> Result<Self> {
        let (mut samplers, mut views) = (Vec::new(), Vec::new());
        for service in services {
            let ip = pods.kubectl(&["get", "service", service, "-o", "jsonpath={.spec.clusterIP}"])?;
            let ip = ip.parse().with_context(|| format!("{service} has the address {ip:?}"))?;
            samplers.push(((*service).to_owned(), Sampler::start(node, SocketAddr::new(ip, 80), Manner::Line)?));
            views.push(View::of_slices(pods.client(), NAMESPACE, service)?);
        }
        Ok(Self { samplers, views, checked: Cell::new(0) })
    }

    /// One more view in which two must never be seen.
    pub fn and(mut self, view: View) -> Self {
        self.views.push(view);
        self
    }

    /// Waits until the pod of this activation, and nobody else, has answered for a while since that began.
    pub fn wait(&self, active: &Span) -> Result<()> {
        self.samplers.iter().try_for_each(|(_, sampler)| sampler.wait(&active.member, active.first, LIMIT))
    }

    /// Since the check before, only who was active has answered, and never were two to be seen. Says after `what` that was.
    pub fn check(&self, pods: &Pods, what: &str) -> Result<()> {
        let since = self.checked.replace(stamp::now());
        for (service, sampler) in &self.samplers {
            let findings = sampler.check(&pods.history(), since);
            let findings = findings.with_context(|| format!("{what}: {service}{}", pods.logs()))?;
            eprintln!("{what}: {service}: {findings}");
        }
        self.views.iter().try_for_each(View::never_two).with_context(|| what.to_owned())
    }
}
