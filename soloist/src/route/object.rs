//! One object at the API server that says where traffic goes, changed by compare-and-set with the fencing token in it.
//!
//! It is read and replaced by resource version. Which activation wrote it last stands in an annotation, and a smaller
//! token never replaces a larger one. What the object looks like is the business of its [`Shape`].

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use election::{Activation, Token};
use serde_json::{Value, json};

use super::api::{Api, Mode, Resource, Stored, Trouble};
use super::{Pending, Route, Turn};
use crate::lock::kubernetes::Access;

/// The annotation with the fencing token of whoever wrote the object last.
pub const TOKEN: &str = "soloist.dev/token";

/// So often may somebody else be faster before an operation fails.
pub const TRIES_MAX: u32 = 8;

/// What is to stand in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Traffic goes to this member.
    Here,
    /// No traffic goes to this member, whose activation has taken back what it published.
    Withdrawn(Activation),
    /// No traffic, by nobody's wish: nobody has published yet, or somebody newer has ended it.
    Nobody,
}

/// What one kind of object looks like.
pub trait Shape: 'static {
    /// Where it is.
    fn resource(&self) -> &Resource;

    /// Its name.
    fn name(&self) -> &str;

    /// Where traffic goes once it is published, for people.
    fn target(&self) -> String;

    /// Whether it is made where it does not exist.
    fn is_made(&self) -> bool {
        true
    }

    /// Whether the object as it was found may be written.
    ///
    /// # Errors
    /// Whose it is, or why it is another one.
    fn look(&self, found: &Value) -> Result<(), String>;

    /// Puts what is ours into the object, whose metadata is there already.
    fn fill(&self, object: &mut Value, content: Content);
}

/// One object that routes traffic. Clones share what is known of it.
pub struct Object<S>(Rc<Shared<S>>);

impl<S> Clone for Object<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

struct Shared<S> {
    api: Rc<Api>,
    shape: S,
    /// The object as it was found last, if it was there, for the next publication.
    found: RefCell<Option<Option<Value>>>,
    /// The object as this member has published it.
    last: RefCell<Option<Value>>,
    /// A write was sent, and nobody knows whether it took effect, or will.
    unsettled: Cell<bool>,
}

impl<S: Shape> Object<S> {
    /// Nothing is read or asked yet.
    pub fn new(access: Access, shape: S) -> Self {
        Self::with(Rc::new(Api::new(access)), shape)
    }

    /// The same over connections that others use as well.
    pub fn with(api: Rc<Api>, shape: S) -> Self {
        Self(Rc::new(Shared {
            api,
            shape,
            found: RefCell::default(),
            last: RefCell::default(),
            unsettled: Cell::new(false),
        }))
    }

    /// What it looks like.
    pub fn shape(&self) -> &S {
        &self.0.shape
    }

    /// The object as somebody else has just read it, for the next publication.
    pub fn know(&self, found: Option<Value>) {
        self.0.found.replace(found.map(Some));
    }

    /// The object as it is now.
    ///
    /// # Errors
    /// It is not known.
    pub async fn get(&self) -> Result<Option<Value>, Trouble> {
        self.0.get().await
    }

    /// Makes the object, with no traffic, where there is none, and has the API server try what a publication would
    /// write.
    ///
    /// # Errors
    /// A publication would fail, and why.
    pub async fn check(&self) -> Result<(), Trouble> {
        let shared = &self.0;
        for _ in 0..TRIES_MAX {
            let Some(before) = shared.get().await? else {
                shared.make().await?;
                continue;
            };
            shared.shape.look(&before).map_err(Trouble::Refused)?;
            let wanted = shared.encode(Some(&before), Content::Here, None);
            let (of, name) = (shared.shape.resource(), shared.shape.name());
            if let Stored::As(_) = shared.api.put(of, name, &wanted, Mode::Trial).await? {
                return Ok(());
            }
        }
        Err(shared.overtaken())
    }

    /// Ends traffic by this object, whoever published it: with `token`, no older activation does so again.
    ///
    /// # Errors
    /// It may have traffic.
    pub async fn end(&self, found: Option<Value>, token: Option<Token>) -> Result<(), Trouble> {
        let shared = &self.0;
        let decide = |before: Option<&Value>| {
            let Some(before) = before else { return Ok(None) };
            if let Some(token) = token {
                shared.refuse_newer(Some(before), token)?;
            }
            shared.shape.look(before)?;
            Ok(Some((Content::Nobody, token)))
        };
        shared.replace(found.map(Some), decide).await.map(drop)
    }
}

impl<S: Shape> Route for Object<S> {
    fn prepare(&self) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move {
            let found = shared.get().await.map_err(|trouble| trouble.to_string())?;
            shared.found.replace(Some(found));
            Ok(())
        })
    }

    fn publish(&self, turn: Turn) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move { shared.publish(turn).await.map_err(|trouble| trouble.to_string()) })
    }

    fn withdraw(&self, turn: Turn) -> Pending {
        let shared = Rc::clone(&self.0);
        Box::pin(async move { shared.withdraw(turn).await.map_err(|trouble| trouble.to_string()) })
    }
}

impl<S: Shape> Shared<S> {
    async fn publish(&self, turn: Turn) -> Result<(), Trouble> {
        self.last.replace(None);
        let token = turn.token;
        let decide = |before: Option<&Value>| {
            self.refuse_newer(before, token)?;
            match before {
                Some(before) => self.shape.look(before)?,
                None if self.shape.is_made() => {}
                None => return Err(format!("{self} does not exist any more")),
            }
            Ok(Some((Content::Here, Some(token))))
        };
        let stored = self.replace(self.found.take(), decide).await?;
        if stored.as_ref().and_then(token_of) != Some(token) {
            let why = format!("the API server's answer shows another {self} than the one that was sent");
            return Err(Trouble::Refused(why));
        }
        tracing::info!("{self} is published: {} with token {token}", self.shape.target());
        self.last.replace(stored);
        Ok(())
    }

    async fn withdraw(&self, turn: Turn) -> Result<(), Trouble> {
        let known = self.last.take();
        let is_unsettled = self.unsettled.take();
        if known.is_none() && !is_unsettled {
            return Ok(());
        }
        let token = turn.token;
        let decide = |before: Option<&Value>| {
            let published = before.and_then(token_of);
            // What is still on its way meets another version after a write, and has no effect. Whatever stands there with
            // a smaller token or none is older than this activation.
            let is_ours = published == Some(token) || is_unsettled && published < Some(token);
            let can_be_written = before.is_some() || self.shape.is_made();
            Ok((is_ours && can_be_written).then_some((Content::Withdrawn(turn.activation), Some(token))))
        };
        if self.replace(known.map(Some), decide).await?.is_some() {
            tracing::info!("{self} is withdrawn");
        }
        Ok(())
    }

    /// Writes what `decide` makes of the object as it is, until nobody was faster; nothing where it wants nothing.
    async fn replace(
        &self,
        mut found: Option<Option<Value>>,
        decide: impl Fn(Option<&Value>) -> Result<Option<(Content, Option<Token>)>, String>,
    ) -> Result<Option<Value>, Trouble> {
        for _ in 0..TRIES_MAX {
            let before = match found.take() {
                Some(before) => before,
                None => self.get().await?,
            };
            let Some((content, token)) = decide(before.as_ref()).map_err(Trouble::Refused)? else { return Ok(None) };
            let wanted = self.encode(before.as_ref(), content, token);
            let was_unsettled = self.unsettled.replace(true);
            let answer = self.store(before.is_some(), &wanted).await?;
            self.unsettled.set(was_unsettled);
            if let Stored::As(stored) = answer {
                return Ok(Some(stored));
            }
        }
        Err(self.overtaken())
    }

    fn overtaken(&self) -> Trouble {
        Trouble::Unavailable(format!("{self} was changed by others {TRIES_MAX} times meanwhile"))
    }

    fn refuse_newer(&self, before: Option<&Value>, token: Token) -> Result<(), String> {
        match before.and_then(token_of).filter(|published| *published > token) {
            Some(newer) => Err(format!("{self} is published with token {newer}, which is newer than {token}")),
            None => Ok(()),
        }
    }

    async fn get(&self) -> Result<Option<Value>, Trouble> {
        self.api.get(self.shape.resource(), self.shape.name()).await
    }

    async fn store(&self, exists: bool, wanted: &Value) -> Result<Stored, Trouble> {
        let (of, name) = (self.shape.resource(), self.shape.name());
        match exists {
            true => self.api.put(of, name, wanted, Mode::Real).await,
            false => self.api.post(of, name, wanted).await,
        }
    }

    async fn make(&self) -> Result<(), Trouble> {
        if !self.shape.is_made() {
            return Err(Trouble::Refused(format!("{self} does not exist")));
        }
        // Somebody else may be faster, and then it is there as well.
        self.store(false, &self.encode(None, Content::Nobody, None)).await.map(drop)
    }

    /// The object with `content`: `before` with what is ours in it replaced, or a new one.
    fn encode(&self, before: Option<&Value>, content: Content, token: Option<Token>) -> Value {
        let of = self.shape.resource();
        let mut object = before.filter(|before| before.is_object()).cloned().unwrap_or_else(|| json!({}));
        object["apiVersion"] = of.api_version().into();
        object["kind"] = of.kind.into();
        let metadata = &mut object["metadata"];
        if !metadata.is_object() {
            *metadata = json!({"name": self.shape.name(), "namespace": of.namespace});
        }
        // The server keeps the book of who manages which field.
        metadata["managedFields"] = Value::Null;
        for name in ["annotations", "labels"] {
            if !metadata[name].is_object() {
                metadata[name] = json!({});
            }
        }
        if let Some(token) = token {
            metadata["annotations"][TOKEN] = token.to_string().into();
        }
        self.shape.fill(&mut object, content);
        object
    }
}

impl<S: Shape> std::fmt::Display for Shared<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shape.resource().called(self.shape.name()))
    }
}

/// Who published the object, if it was a member of ours.
pub fn token_of(object: &Value) -> Option<Token> {
    object["metadata"]["annotations"][TOKEN].as_str()?.parse().ok().map(Token)
}

#[cfg(test)]
pub(super) mod tests;
