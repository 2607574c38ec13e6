//! Deserialisation of structs from JSON objects only.
//!
//! serde's derived code also accepts an array with the fields by position. `"network": []` would
//! then be an empty configuration, which allows everything.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserializer,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};

/// Implements `Serialize` and `Deserialize` for structs that derive both with `#[serde(remote =
/// "Self")]`, so that they are deserialised only from objects.
macro_rules! deserialize_objects_only {
    ($($form:ty),*) => {$(
        impl<'de> json_object::ObjectFields<'de> for $form {
            fn deserialize_fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // Calls the derived function, not the trait's.
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

/// Deserialises a struct's fields from any format.
pub(super) trait ObjectFields<'de>: Sized {
    /// The function that serde derives.
    fn deserialize_fields<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
}

/// Deserialises an object.
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
