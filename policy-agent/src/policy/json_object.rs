//! JSON objects that are nothing but objects.
//!
//! serde's derived code also takes an array, with the fields by position: `"network": []` would be
//! an empty configuration, which allows everything.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Implements `Serialize` and `Deserialize` for structs that derive both with
/// `#[serde(remote = "Self")]`, such that they are read from objects only.
macro_rules! deserialize_objects_only {
    ($($form:ty),*) => {$(
        impl<'de> json_object::ObjectFields<'de> for $form {
            fn deserialize_fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // The derived function, not the trait's.
                <$form>::deserialize(deserializer)
            }
        }

        impl<'de> Deserialize<'de> for $form {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                json_object::deserialize_object(deserializer)
            }
        }

        impl Serialize for $form {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                <$form>::serialize(self, serializer)
            }
        }
    )*};
}
pub(super) use deserialize_objects_only;

/// A struct's fields, from whatever holds them.
pub(super) trait ObjectFields<'de>: Sized {
    /// What serde derives.
    fn deserialize_fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Reads an object.
pub(super) fn deserialize_object<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: ObjectFields<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_map(ObjectVisitor(PhantomData))
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: ObjectFields<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize_fields(MapAccessDeserializer::new(map))
    }
}
