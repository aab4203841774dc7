"""The two networks: StabGenerator and StabDiscriminator."""
