from .images import show_audio as show_audio
from .images import show_channels as show_channels
from .images import show_images as show_images
from .network_picture import show_network as show_network
from .pause_chart import show_pauses as show_pauses
from .truths import show_truth as show_truth
