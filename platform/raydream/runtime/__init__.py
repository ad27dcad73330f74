"""The runtime: the only folder that imports ray. Actors, the Ray Train function and the driver, all of them thin."""
