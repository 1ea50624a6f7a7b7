from .images import show_audio as show_audio
from .images import show_channels as show_channels
from .images import show_images as show_images
