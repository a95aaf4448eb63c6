################################################################################
#
# xdnsd
#
################################################################################

XDNSD_VERSION = 0.1.0
XDNSD_SOURCE = xdnsd-$(XDNSD_VERSION)-vendored.tar.gz
# The release is made from the checkout that this tree is part of, by
# "cargo xtask dist", which writes its hash beside this file. With it come
# its dependencies and the compiled XDP program, so that neither the network
# nor LLVM is needed here.
XDNSD_SITE = $(BR2_EXTERNAL_XDNSD_PATH)/../dist
XDNSD_SITE_METHOD = file
XDNSD_SUBDIR = appliance
XDNSD_LICENSE = \
	MIT, \
	MIT or GPL-2.0 (XDP program), \
	MIT or Apache-2.0, Unicode-3.0, Unlicense or MIT, Zlib (vendored crates)
# The second one has the crates that are compiled in, each with its licence.
XDNSD_LICENSE_FILES = LICENSE THIRD-PARTY-LICENSES

# cargo-package sets the profile in the environment, where it wins over
# Cargo.toml. This is the profile that is tested: small, and with arithmetic
# that stops instead of wrapping.
XDNSD_CARGO_ENV = \
	CARGO_PROFILE_RELEASE_LTO="fat" \
	CARGO_PROFILE_RELEASE_CODEGEN_UNITS="1" \
	CARGO_PROFILE_RELEASE_OPT_LEVEL="3" \
	CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS="true" \
	CARGO_PROFILE_RELEASE_PANIC="abort"

XDNSD_CAPACITIES = \
	MEMORY_MIB \
	WORKERS \
	SOCKETS \
	CHUNKS_PER_QUEUE \
	RX_RING \
	TX_RING \
	CACHE_SHARDS \
	CACHE_SMALL_SETS \
	CACHE_LARGE_SETS \
	PENDING \
	WAITERS \
	ALIASES \
	UPSTREAMS \
	UPSTREAM_SOCKETS \
	STREAMS \
	TCP_CLIENTS

XDNSD_CARGO_ENV += $(foreach capacity,$(XDNSD_CAPACITIES),\
	XDNSD_LIMIT_$(capacity)="$(BR2_PACKAGE_XDNSD_$(capacity))")

XDNSD_CARGO_BUILD_OPTS = --bin xdnsd
XDNSD_CARGO_INSTALL_OPTS = --bin xdnsd

# All that the server itself asks of a kernel.
define XDNSD_LINUX_CONFIG_FIXUPS
	$(call KCONFIG_ENABLE_OPT,CONFIG_NET)
	$(call KCONFIG_ENABLE_OPT,CONFIG_INET)
	$(call KCONFIG_ENABLE_OPT,CONFIG_IPV6)
	$(call KCONFIG_ENABLE_OPT,CONFIG_UNIX)
	$(call KCONFIG_ENABLE_OPT,CONFIG_BPF_SYSCALL)
	$(call KCONFIG_ENABLE_OPT,CONFIG_BPF_JIT)
	$(call KCONFIG_ENABLE_OPT,CONFIG_XDP_SOCKETS)
	$(call KCONFIG_ENABLE_OPT,CONFIG_EPOLL)
	$(call KCONFIG_ENABLE_OPT,CONFIG_EVENTFD)
	$(call KCONFIG_ENABLE_OPT,CONFIG_INOTIFY_USER)
	$(call KCONFIG_ENABLE_OPT,CONFIG_SIGNALFD)
endef

define XDNSD_USERS
	xdnsd -1 xdnsd -1 * - - - DNS forwarder
	xdnsd-keeper -1 xdnsd-keeper -1 * - - - Rights of the DNS forwarder
endef

# Only where the maker's overlay has none yet.
define XDNSD_INSTALL_CONFIG
	$(INSTALL) -D -m 0644 $(@D)/config/minimal.toml \
		$(TARGET_DIR)/etc/xdnsd/xdnsd.toml
endef
XDNSD_POST_INSTALL_TARGET_HOOKS += XDNSD_INSTALL_CONFIG

define XDNSD_INSTALL_FETCH_LISTS
	$(INSTALL) -D -m 0755 $(XDNSD_PKGDIR)/fetch-lists \
		$(TARGET_DIR)/usr/libexec/xdnsd/fetch-lists
endef
XDNSD_POST_INSTALL_TARGET_HOOKS += XDNSD_INSTALL_FETCH_LISTS

define XDNSD_INSTALL_INIT_SYSV
	$(INSTALL) -D -m 0755 $(XDNSD_PKGDIR)/S60xdnsd \
		$(TARGET_DIR)/etc/init.d/S60xdnsd
	$(INSTALL) -D -m 0755 $(XDNSD_PKGDIR)/supervise \
		$(TARGET_DIR)/usr/libexec/xdnsd/supervise
endef

define XDNSD_INSTALL_INIT_SYSTEMD
	$(INSTALL) -D -m 0644 $(XDNSD_PKGDIR)/xdnsd.service \
		$(TARGET_DIR)/usr/lib/systemd/system/xdnsd.service
	$(INSTALL) -D -m 0644 $(XDNSD_PKGDIR)/xdnsd-fetch-lists.service \
		$(TARGET_DIR)/usr/lib/systemd/system/xdnsd-fetch-lists.service
	$(INSTALL) -D -m 0644 $(XDNSD_PKGDIR)/xdnsd-fetch-lists.timer \
		$(TARGET_DIR)/usr/lib/systemd/system/xdnsd-fetch-lists.timer
endef

$(eval $(cargo-package))
