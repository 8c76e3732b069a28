"""The textbook's airfoil experiment in TensorFlow and Keras: the same seeds come to the textbook's losses."""

from airfoil_oracle import check_framework, concise_forms, needs_airfoil, scratch_forms


@needs_airfoil
def test_airfoil_comes_to_the_textbooks_losses():
    check_framework("tensorflow", scratch_forms() | concise_forms("keras.optimizers", "onepass.keras"))
