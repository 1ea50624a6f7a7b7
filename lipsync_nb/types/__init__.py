"""What flows between the rooms: arrays, records that check themselves, objects that show."""
