//! The JSON form of `network.rules`, as E2B's clients send it.
//!
//! Header values may be credentials. `Debug` and `Serialize` leave them out, and errors do not quote
//! them. [`NetworkRules::to_json_with_values`] has them.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::super::{SecretString, json_object};

json_object::deserialize_objects_only! { NetworkRule, NetworkTransform }

/// `network.rules`: from a domain to a list with at most one rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = BTreeMap<String, Vec<NetworkRule>>)]
pub struct NetworkRules(BTreeMap<String, Vec<NetworkRule>>);

/// A rule of a domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct NetworkRule {
    /// What to change in requests. Absent: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transform: Option<NetworkTransform>,
}

/// What a rule changes in requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, remote = "Self")]
pub struct NetworkTransform {
    /// Headers to set. A value may refer to secrets: `${e2b.secrets.<name>}`.
    #[serde(default, deserialize_with = "unique_keys", serialize_with = "hide_values")]
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    pub headers: BTreeMap<String, SecretString>,
}

impl NetworkRules {
    /// The domains, and the rules of each.
    pub(super) const fn domains(&self) -> &BTreeMap<String, Vec<NetworkRule>> {
        &self.0
    }

    /// Whether there is no domain.
    pub(in super::super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rules with the values of their headers, which plain serialisation leaves out.
    #[must_use]
    pub fn to_json_with_values(&self) -> Value {
        let domains = self.0.iter().map(|(domain, rules)| {
            let rules = rules.iter().map(NetworkRule::to_json_with_values).collect();
            (domain.clone(), Value::Array(rules))
        });
        Value::Object(domains.collect())
    }
}

impl NetworkRule {
    fn to_json_with_values(&self) -> Value {
        let Some(transform) = &self.transform else { return json!({}) };
        let values = transform.headers.iter();
        let headers: BTreeMap<_, _> =
            values.map(|(name, value)| (name.as_str(), value.reveal())).collect();
        json!({ "transform": { "headers": headers } })
    }
}

impl<'de> Deserialize<'de> for NetworkRules {
    /// An empty list counts as an empty object.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys(PhantomData)).map(Self)
    }
}

fn unique_keys<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<UniqueMap<T>>::deserialize(deserializer)?.map(|map| map.0).unwrap_or_default())
}

/// An object whose keys differ.
struct UniqueMap<T>(BTreeMap<String, T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for UniqueMap<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys(PhantomData)).map(Self)
    }
}

/// serde's maps keep the last of equal keys without an error.
struct UniqueKeys<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for UniqueKeys<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = BTreeMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value()?;
            if entries.insert(key, value).is_some() {
                return Err(A::Error::custom("holds a name twice"));
            }
        }
        Ok(entries)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        match list.next_element::<serde::de::IgnoredAny>()? {
            None => Ok(BTreeMap::new()),
            Some(_) => Err(A::Error::custom("must be an object, not a list")),
        }
    }
}

/// Writes the names with null, so that what is read from an answer cannot be applied by mistake.
fn hide_values<S: Serializer>(
    headers: &BTreeMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(headers.keys().map(|name| (name, None::<&str>)))
}
