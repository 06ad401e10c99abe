// SPDX-License-Identifier: Apache-2.0
//! Layers, good and hostile, unpacked into a directory beside a canary.
