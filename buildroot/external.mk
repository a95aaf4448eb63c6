include $(sort $(wildcard $(BR2_EXTERNAL_XDNSD_PATH)/package/*/*.mk))
