//! A service of Consul: each member is an instance with a health check, and a tag says which one is the active one.
//!
//! The instance is registered with the agent, which checks it. Its tags are changed in the catalog, all of them in one
//! transaction that checks what each instance was: the tag of the active one goes from one instance to another at one
//! instant, also from one whose member is dead. Each publication marks every instance of the group with its token, so
//! that what an older activation sent finds its own instance changed, however late it arrives. Agents put back what they
//! know better, except the tags of instances that allow it (`EnableTagOverride`), so the token is a tag as well.

use std::rc::Rc;
use std::time::Duration;

use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::open::Obstacle;
use super::{Pending, Route, Turn, Watching};
use crate::error::{Code, Failure};
use crate::lock::Failed;
use crate::lock::LockError;
use crate::lock::consul::Access;
use crate::lock::consul::answer;
use crate::lock::consul::client::{Client, spelled};
use crate::lock::consul::waiting_time;
use crate::patience::{jittered, within};

/// The tag of the active one.
const ACTIVE: &str = "active";
/// The tag of all others.
const STANDBY: &str = "standby";
/// What the tag with the token begins with.
const TOKEN: &str = "soloist-token=";
/// Where an instance says which lock its tags follow.
const LOCK: &str = "soloist-lock";
/// The shortest that Consul allows: a dead instance is taken away after it was critical for so long.
const DEREGISTER_AFTER: &str = "1m";
/// How long the catalog may take to know an instance that its agent knows.
const CATALOG_MAX: Duration = Duration::from_secs(5);
const CATALOG_PACE: Duration = Duration::from_millis(20);
/// Before Consul is asked once more that did not answer, or did not want to.
const LOOK_PAUSE: Duration = Duration::from_secs(5);
/// How often a change is tried while others make one as well.
const TRIES: u32 = 6;

/// One member as an instance of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Definition {
    /// How the agent is reached.
    pub access: Access,
    /// The service's name.
    pub service: String,
    /// The member's name: each has one instance.
    pub member: String,
    /// Where the instance answers; the agent's own address where nothing is said.
    pub address: Option<String>,
    /// The port on which it does.
    pub port: Option<u16>,
    /// How its agent finds out whether it is well, if it does.
    pub check: Option<Check>,
}

/// A request that a healthy instance answers with 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The path.
    pub path: String,
    /// How often it is asked.
    pub interval: Duration,
}

impl Definition {
    fn id(&self) -> String {
        format!("{}-{}", self.service, self.member)
    }

    /// What the agent is told.
    fn registration(&self, lock: &str, tags: &[String]) -> Value {
        let mut told = json!({
            "ID": self.id(), "Name": self.service, "Tags": tags, "Meta": {LOCK: lock}, "EnableTagOverride": true,
        });
        if let Some(address) = &self.address {
            told["Address"] = address.as_str().into();
        }
        if let Some(port) = self.port {
            told["Port"] = port.into();
        }
        if let (Some(check), Some(port)) = (&self.check, self.port) {
            let host = self.address.as_deref().unwrap_or("127.0.0.1");
            let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
            told["Check"] = json!({
                "HTTP": format!("http://{host}:{port}{}", check.path),
                "Interval": format!("{}ms", check.interval.as_millis()),
                "DeregisterCriticalServiceAfter": DEREGISTER_AFTER,
            });
        }
        told
    }

    /// What it takes, as it stands in a policy.
    fn rule(&self) -> String {
        format!("service {:?} {{ policy = \"write\" }} and node_prefix \"\" {{ policy = \"read\" }}", self.service)
    }
}

/// An instance as the catalog shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: String,
    #[serde(rename = "ServiceID")]
    id: String,
    #[serde(default, rename = "ServiceTags")]
    tags: Option<Vec<String>>,
    #[serde(default, rename = "ServiceMeta")]
    meta: Value,
    #[serde(default, rename = "ServiceAddress")]
    address: String,
    #[serde(default, rename = "ServicePort")]
    port: u16,
    modify_index: u64,
}

impl Instance {
    fn has(&self, tag: &str) -> bool {
        self.tags.iter().flatten().any(|one| one == tag)
    }

    fn is_active(&self, token: u64) -> bool {
        self.has(ACTIVE) && self.token() == Some(token)
    }

    fn token(&self) -> Option<u64> {
        self.tags.iter().flatten().find_map(|tag| tag.strip_prefix(TOKEN)?.parse().ok())
    }

    /// The operation that marks it with `token` and as what it is, unless it has changed meanwhile.
    fn marked(&self, service: &str, role: &str, token: u64) -> Value {
        json!({"Service": {"Verb": "cas", "Node": self.node, "Service": {
            "ID": self.id, "Service": service, "Tags": tags(role, token), "Meta": self.meta, "Address": self.address,
            "Port": self.port, "EnableTagOverride": true, "ModifyIndex": self.modify_index,
        }}})
    }
}

fn tags(role: &str, token: u64) -> [String; 2] {
    [role.to_owned(), format!("{TOKEN}{token}")]
}

/// The members of one group as instances of a service.
pub struct ConsulService(Rc<Shared>);

struct Shared {
    client: Client,
    /// A query that waits is in the way of others.
    listener: Client,
    definition: Definition,
    lock: String,
}

impl ConsulService {
    /// Nothing is asked yet. `lock` is the same for all members of the group and for nobody else.
    pub fn new(definition: Definition, lock: String) -> Self {
        let client = Client::new(definition.access.clone());
        Self(Rc::new(Shared { listener: client.beside(), client, definition, lock }))
    }

    /// Registers the instance as one that stands by, and waits until the catalog shows it.
    ///
    /// # Errors
    /// It is not allowed, or the name is somebody else's, or Consul does not answer.
    pub async fn enter(&self) -> Result<(), Obstacle> {
        let shared = &self.0;
        let instances = shared.instances().await?;
        let is_stranger = |instance: &&Instance| instance.meta[LOCK] != shared.lock.as_str();
        if let Some(stranger) = shared.own(&instances).filter(is_stranger) {
            let what = format!("the instance {:?} on node {:?} is not of this group", stranger.id, stranger.node);
            return Err(Failure::new(Code::Configuration, what).hint("choose another name for the service").into());
        }
        shared.register(&[STANDBY.to_owned()]).await?;
        let limit = Instant::now() + CATALOG_MAX;
        loop {
            let instances = shared.instances().await?;
            if shared.own(&instances).is_some() {
                return Ok(());
            }
            if Instant::now() > limit {
                let what = format!("the catalog does not know the instance after {CATALOG_MAX:?}");
                return Err(Obstacle::Unavailable(what));
            }
            sleep(CATALOG_PACE).await;
        }
    }
}

impl Shared {
    fn own<'a>(&self, instances: &'a [Instance]) -> Option<&'a Instance> {
        instances.iter().find(|instance| instance.id == self.definition.id())
    }

    /// All instances of the service, as the leader has them.
    async fn instances(&self) -> Result<Vec<Instance>, Failed> {
        Ok(self.shown(&self.client, "consistent").await?.1)
    }

    /// The same as soon as it has changed since the change of this number, or when there was nothing new for long; and the
    /// number of the latest change.
    async fn instances_after(&self, index: u64) -> Result<(u64, Vec<Instance>), Failed> {
        let (wait, limit) = waiting_time();
        let query = format!("consistent&index={index}&wait={}s", wait.as_secs());
        within(limit, self.shown(&self.listener, &query)).await
    }

    async fn shown(&self, client: &Client, query: &str) -> Result<(u64, Vec<Instance>), Failed> {
        let path = format!("/v1/catalog/service/{}", spelled(&self.definition.service));
        let answered = client.call(Method::GET, &path, query, Vec::new()).await?;
        answer::listed(&answered, &self.definition.rule())
    }

    /// Whether the instances are not as the activation with this token published them, and nobody newer has changed them.
    fn is_disturbed(&self, instances: &[Instance], token: u64) -> bool {
        let mut group = self.group(instances);
        let is_as_published = |one: &Instance| {
            if one.id == self.definition.id() { one.is_active(token) } else { !one.has(ACTIVE) }
        };
        !group.clone().any(|one| one.token() > Some(token))
            && (self.own(instances).is_none() || !group.all(is_as_published))
    }

    /// Ends when that is so.
    async fn disturbed(&self, token: u64) {
        let mut index = 0;
        loop {
            match self.instances_after(index).await {
                Ok((_, instances)) if self.is_disturbed(&instances, token) => return,
                // Where Consul counts backwards, it begins anew.
                Ok((now, _)) => index = if now < index { 0 } else { now.max(1) },
                Err(_) => {
                    self.listener.forget();
                    index = 0;
                    sleep(jittered(LOOK_PAUSE)).await;
                }
            }
        }
    }

    /// Tells the agent, whose word counts for everything but the tags; and for them as well whenever the check of the
    /// instance has another result, which Consul 1.20 stores together with what the agent was told last.
    async fn register(&self, tags: &[String]) -> Result<(), Failed> {
        let body = self.definition.registration(&self.lock, tags).to_string().into_bytes();
        self.tell("/v1/agent/service/register", body).await
    }

    async fn tell(&self, path: &str, body: Vec<u8>) -> Result<(), Failed> {
        let answered = self.client.call(Method::PUT, path, "", body).await?;
        if answered.status == StatusCode::OK { Ok(()) } else { Err(answer::failed(&answered, &self.definition.rule())) }
    }

    async fn transact(&self, operations: Vec<Value>) -> Result<(), Failed> {
        let body = Value::Array(operations).to_string().into_bytes();
        let answered = self.client.call(Method::PUT, "/v1/txn", "", body).await?;
        answer::transaction(&answered, &self.definition.rule()).map(drop)
    }

    /// What makes the own instance the active one and all others of the group stand by.
    fn operations(&self, instances: &[Instance], token: u64) -> Vec<Value> {
        let role = |one: &Instance| if one.id == self.definition.id() { ACTIVE } else { STANDBY };
        self.group(instances).map(|one| one.marked(&self.definition.service, role(one), token)).collect()
    }

    fn group<'a>(&'a self, instances: &'a [Instance]) -> impl Iterator<Item = &'a Instance> + Clone {
        instances.iter().filter(|one| one.meta[LOCK] == self.lock.as_str())
    }

    /// The agent takes whatever it is told, however late: so all is looked at once more after it was told, and what turns out
    /// to be old is taken back.
    async fn publish(&self, turn: Turn) -> Result<(), String> {
        let (service, token) = (&self.definition.service, turn.token.0);
        let mut is_told = false;
        for _ in 0..TRIES {
            let instances = self.instances().await.map_err(sentence)?;
            if let Some(newer) = self.group(&instances).filter_map(Instance::token).find(|other| *other > token) {
                if is_told {
                    self.register(&tags(STANDBY, newer)).await.map_err(sentence)?;
                }
                return Err(format!("the service {service} has token {newer}, which is newer"));
            }
            let Some(own) = self.own(&instances) else {
                // Its agent was restarted, or somebody took it away.
                self.register(&[STANDBY.to_owned()]).await.map_err(sentence)?;
                sleep(CATALOG_PACE).await;
                continue;
            };
            if is_told && own.is_active(token) {
                return Ok(());
            }
            match self.transact(self.operations(&instances, token)).await {
                Err(Failed::Conflict | Failed::Absent) => {}
                done => {
                    done.map_err(sentence)?;
                    self.register(&tags(ACTIVE, token)).await.map_err(sentence)?;
                    is_told = true;
                }
            }
        }
        Err(format!("the service {service} changes too often"))
    }

    async fn withdraw(&self, turn: Turn) -> Result<(), String> {
        for _ in 0..TRIES {
            let instances = self.instances().await.map_err(sentence)?;
            let Some(own) = self.own(&instances) else { return Ok(()) };
            if !own.is_active(turn.token.0) {
                // Another one has published: the agent must not put back what this one did.
                return self.register(own.tags.as_deref().unwrap_or_default()).await.map_err(sentence);
            }
            let operation = own.marked(&self.definition.service, STANDBY, turn.token.0);
            match self.transact(vec![operation]).await {
                Err(Failed::Conflict | Failed::Absent) => {}
                Ok(()) => return self.register(&tags(STANDBY, turn.token.0)).await.map_err(sentence),
                Err(failed) => return Err(sentence(failed)),
            }
        }
        Err(format!("the service {} changes too often", self.definition.service))
    }
}

impl Route for ConsulService {
    fn publish(&self, turn: Turn) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move { shared.publish(turn).await })
    }

    fn disturbed(&self, turn: Turn) -> Watching {
        let shared = Rc::clone(&self.0);
        Box::pin(async move { shared.disturbed(turn.token.0).await })
    }

    fn withdraw(&self, turn: Turn) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move { shared.withdraw(turn).await })
    }

    fn close(&self) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move {
            let path = format!("/v1/agent/service/deregister/{}", spelled(&shared.definition.id()));
            shared.tell(&path, Vec::new()).await.map_err(sentence)
        })
    }
}

impl From<Failed> for Obstacle {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Denied(why) => Failure::new(Code::Permission, why).into(),
            other => Obstacle::Unavailable(sentence(other)),
        }
    }
}

fn sentence(failed: Failed) -> String {
    LockError::from(failed).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock::consul::Server;

    fn definition() -> Definition {
        Definition {
            access: Access::new(&Server::default(), &|_| None).unwrap(),
            service: "capi-drs".into(),
            member: "a".into(),
            address: Some("fd00::7".into()),
            port: Some(8080),
            check: Some(Check { path: "/health".into(), interval: Duration::from_secs(10) }),
        }
    }

    #[test]
    fn the_agent_is_told_what_to_check() {
        let told = definition().registration("l", &[STANDBY.to_owned()]);
        assert_eq!(told["Check"]["HTTP"], "http://[fd00::7]:8080/health");
        assert_eq!((&told["Check"]["Interval"], &told["Tags"]), (&json!("10000ms"), &json!(["standby"])));
        assert_eq!(told["EnableTagOverride"], true);
        let silent = Definition { check: None, address: None, port: None, ..definition() }.registration("l", &[]);
        assert!(silent["Check"].is_null() && silent["Address"].is_null() && silent["Port"].is_null());
    }

    #[test]
    fn an_instance_keeps_all_but_its_tags() {
        let shown = json!({"Node": "n", "ServiceID": "capi-drs-a", "ServiceTags": ["active", "soloist-token=7"],
            "ServiceMeta": {"soloist-lock": "l", "x": "y"}, "ServiceAddress": "10.0.0.1", "ServicePort": 8080,
            "ModifyIndex": 12});
        let instance: Instance = serde_json::from_value(shown).unwrap();
        assert!(instance.has(ACTIVE) && instance.token() == Some(7));
        let operation = instance.marked("capi-drs", STANDBY, 8);
        let service = &operation["Service"]["Service"];
        assert_eq!((&service["Meta"]["x"], &service["Tags"]), (&json!("y"), &json!(["standby", "soloist-token=8"])));
        assert_eq!((&service["ModifyIndex"], &operation["Service"]["Verb"]), (&json!(12), &json!("cas")));
    }

    #[test]
    fn what_others_changed_is_told_from_what_was_published_and_from_what_is_newer() {
        let route = ConsulService::new(definition(), "l".into());
        let instance = |id: &str, lock: &str, tags: &[&str]| -> Instance {
            let shown = json!({"Node": "n", "ServiceID": id, "ServiceTags": tags, "ServiceMeta": {LOCK: lock},
                "ModifyIndex": 12});
            serde_json::from_value(shown).unwrap()
        };
        let (own, other) = ("capi-drs-a", "capi-drs-b");
        let active = || instance(own, "l", &[ACTIVE, "soloist-token=7"]);
        let is_disturbed = |instances: &[Instance]| route.0.is_disturbed(instances, 7);
        assert!(!is_disturbed(&[active(), instance(other, "l", &[STANDBY, "soloist-token=7"])]));
        assert!(!is_disturbed(&[active(), instance(other, "l", &[STANDBY])]), "it came later");
        assert!(!is_disturbed(&[active(), instance(other, "another", &[ACTIVE, "soloist-token=9"])]));
        assert!(!is_disturbed(&[instance(other, "l", &[ACTIVE, "soloist-token=8"])]), "somebody newer has published");
        assert!(is_disturbed(&[active(), instance(other, "l", &[ACTIVE, "soloist-token=6"])]));
        assert!(is_disturbed(&[instance(own, "l", &[STANDBY, "soloist-token=7"])]));
        assert!(is_disturbed(&[instance(own, "l", &[ACTIVE, "soloist-token=6"])]) && is_disturbed(&[]));
    }

    #[tokio::test]
    #[ignore = "needs a real Consul: make consul"]
    async fn what_an_older_activation_sent_never_lands_after_a_newer_one() {
        let access = Access::new(&Server::default(), &|name| std::env::var(name).ok()).unwrap();
        let service = format!("late-{}", std::process::id());
        let member = |name: &str| {
            let definition =
                Definition { access: access.clone(), service: service.clone(), check: None, ..definition() };
            ConsulService::new(Definition { member: name.into(), ..definition }, "l".into())
        };
        let (old, new) = (member("a"), member("b"));
        old.enter().await.unwrap();
        new.enter().await.unwrap();
        // Both stand by, and the older one's transaction is held up on its way.
        let held_up = old.0.operations(&old.0.instances().await.unwrap(), 5);
        let turn = |token| Turn { activation: election::Activation(7), token: election::Token(token), before: None };
        new.publish(turn(6)).await.unwrap();
        assert_eq!(old.0.transact(held_up).await, Err(Failed::Conflict));
        assert!(old.publish(turn(5)).await.unwrap_err().contains("newer"));
        let active: Vec<_> = new.0.instances().await.unwrap().into_iter().filter(|one| one.has(ACTIVE)).collect();
        assert_eq!((active.len(), active[0].token()), (1, Some(6)));
        // Nor what is told to its agent late: the check of its instance would put that back.
        let told = old.0.client.call(Method::GET, &format!("/v1/agent/service/{service}-a"), "", Vec::new()).await;
        let told: Value = answer::json(&told.unwrap()).unwrap();
        // Its agent may have looked at the catalog meanwhile, and then knows the token that was there.
        let tags = told["Tags"].as_array().unwrap();
        assert!(tags.contains(&json!(STANDBY)) && !tags.contains(&json!(ACTIVE)), "{tags:?}");
        // Also after that one has withdrawn.
        new.withdraw(turn(6)).await.unwrap();
        assert!(old.publish(turn(5)).await.unwrap_err().contains("newer"));
        for route in [&old, &new] {
            route.close().await.unwrap();
        }
    }
}
