"""Pictures, video and sound, as files hold them."""
