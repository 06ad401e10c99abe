//! System calls: the only unsafe code of the engine.
