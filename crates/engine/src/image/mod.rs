//! Images: references, registries, archives, layers.
