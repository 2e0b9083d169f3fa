//! Programs that do nothing, where lockc has its own: what is left is the price of being called.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use super::bpf::{Attributes, LINK_GET_NEXT_ID, OBJ_GET_INFO_BY_FD, bpf, number};

/// Commands of `bpf(2)` (include/uapi/linux/bpf.h).
const PROG_LOAD: u32 = 5;
const RAW_TRACEPOINT_OPEN: u32 = 17;
const LINK_GET_FD_BY_ID: u32 = 30;
/// `BPF_LINK_TYPE_TRACING`.
const LINK_TRACING: u32 = 2;
/// `BPF_PROG_TYPE_TRACING`, `BPF_PROG_TYPE_LSM`.
const PROG_TRACING: u32 = 26;
const PROG_LSM: u32 = 29;
/// `BPF_LSM_MAC`; other programs of such links end functions.
const LSM_MAC: u32 = 27;
/// `r0 = 0; exit`.
const NOTHING: [u64; 2] = [0xb7, 0x95];

/// A function of the kernel that a program is attached to, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    attach_type: u32,
    function: u32,
}

/// What LSM, entry and exit programs are attached to now.
pub(crate) fn targets() -> nix::Result<Vec<Target>> {
    let mut targets = Vec::new();
    let mut id = 0;
    loop {
        // start_id and next_id.
        let mut attributes: Attributes = [id, 0, 0, 0, 0, 0];
        match bpf(LINK_GET_NEXT_ID, &mut attributes) {
            Ok(_) => id = attributes[0] >> 32,
            Err(Errno::ENOENT) => return Ok(targets),
            Err(errno) => return Err(errno),
        }
        let fd = super::owned(bpf(LINK_GET_FD_BY_ID, &mut [id, 0, 0, 0, 0, 0])?)?;
        // `struct bpf_link_info`: type, id, prog_id, attach_type, target_obj_id, target_btf_id from its 16th byte on.
        let mut info = [0_u32; 16];
        let length = size_of_val(&info) as u64;
        let mut attributes =
            [number(&fd) | length << 32, info.as_mut_ptr().expose_provenance() as u64, 0, 0, 0, 0];
        bpf(OBJ_GET_INFO_BY_FD, &mut attributes)?;
        let [kind, _, _, _, attach_type, _, function, ..] = info;
        if kind == LINK_TRACING {
            targets.push(Target { attach_type, function });
        }
    }
}

/// Attaches an empty program to the target, until the link that this gives is closed.
pub(crate) fn attach_nothing(target: Target) -> nix::Result<OwnedFd> {
    let Target { attach_type, function } = target;
    let kind = if attach_type == LSM_MAC { PROG_LSM } else { PROG_TRACING };
    let license = c"GPL";
    // prog_type and insn_cnt, insns, license, and from their 68th and 108th byte on expected_attach_type and
    // attach_btf_id.
    let mut attributes = [0_u64; 14];
    attributes[0] = u64::from(kind) | (NOTHING.len() as u64) << 32;
    attributes[1] = NOTHING.as_ptr().expose_provenance() as u64;
    attributes[2] = license.as_ptr().expose_provenance() as u64;
    attributes[8] = u64::from(attach_type) << 32;
    attributes[13] = u64::from(function) << 32;
    let program = super::owned(bpf(PROG_LOAD, &mut attributes)?)?;
    // name, which these programs do not need, and prog_fd.
    super::owned(bpf(RAW_TRACEPOINT_OPEN, &mut [0, number(&program), 0, 0, 0, 0])?)
}
