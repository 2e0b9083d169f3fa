//! Who a task or a program is.

use lockc_common::NO_USER;

use super::{
    Bprm, Credentials, File, OFF_BPRM_CRED, OFF_BPRM_FILE, OFF_CRED_CAP_PERMITTED, OFF_CRED_EUID,
    OFF_CRED_FSUID, OFF_CRED_SUID, OFF_CRED_UID, OFF_CRED_USER_NS, OFF_IDMAP_EXTENT,
    OFF_IDMAP_EXTENTS, OFF_IDMAP_FORWARD, OFF_USERNS_LEVEL, OFF_USERNS_UID_MAP, UserNamespace,
    load, read,
};

impl Bprm {
    #[inline(always)]
    pub(crate) fn file(self) -> File {
        File(load(self.0, &OFF_BPRM_FILE))
    }

    /// What the program will run with.
    #[inline(always)]
    pub(crate) fn credentials(self) -> Credentials {
        Credentials(load(self.0, &OFF_BPRM_CRED))
    }
}

impl Credentials {
    /// Real, effective, saved and file system user, as the machine numbers them.
    #[inline(always)]
    pub(crate) fn users(self) -> [u32; 4] {
        if self.0.is_null() {
            return [0; 4]; // cannot be; root, then
        }
        [
            load(self.0, &OFF_CRED_UID),
            load(self.0, &OFF_CRED_EUID),
            load(self.0, &OFF_CRED_SUID),
            load(self.0, &OFF_CRED_FSUID),
        ]
    }

    /// Permitted capabilities, by their numbers.
    #[inline(always)]
    pub(crate) fn permitted(self) -> u64 {
        if self.0.is_null() { 0 } else { load(self.0, &OFF_CRED_CAP_PERMITTED) }
    }

    /// The user namespace that they are from.
    #[inline(always)]
    pub(crate) fn namespace(self) -> UserNamespace {
        if self.0.is_null() {
            return UserNamespace(core::ptr::null());
        }
        UserNamespace(load(self.0, &OFF_CRED_USER_NS))
    }
}

impl UserNamespace {
    /// How deep it is nested: 0 is the machine's.
    #[inline(always)]
    pub(crate) fn level(self) -> u32 {
        if self.0.is_null() { 0 } else { load(self.0, &OFF_USERNS_LEVEL) }
    }

    /// What its user 0 is on the machine: [`NO_USER`] for none, `None` if it cannot be read. The map holds numbers
    /// of the machine (`map_write`, `kernel/user_namespace.c`, 6.12).
    #[inline(always)]
    pub(crate) fn root(self) -> Option<u32> {
        const INLINE: u32 = 5; // UID_GID_MAP_MAX_BASE_EXTENTS, include/linux/user_namespace.h, 6.12
        const EXTENT: u64 = 12; // `struct uid_gid_extent`: first, lower_first, count
        let map = self.0 as u64 + OFF_USERNS_UID_MAP.load();
        let count: u32 = read(map + OFF_IDMAP_EXTENTS.load())?;
        if count > INLINE {
            // Sorted by `first` (`sort_idmaps`).
            let extents: u64 = read(map + OFF_IDMAP_FORWARD.load())?;
            let [first, lower]: [u32; 2] = read(extents)?;
            return Some(if first == 0 { lower } else { NO_USER });
        }
        let extents = map + OFF_IDMAP_EXTENT.load();
        for index in 0..INLINE {
            let [first, lower]: [u32; 2] = read(extents + EXTENT * u64::from(index))?;
            if index < count && first == 0 {
                return Some(lower);
            }
        }
        Some(NO_USER)
    }
}
