import pytest

from mflux_api.engine.flux2.lora import map_lora_key


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("diffusion_model.img_in.lora_A.weight", "transformer.x_embedder.lora_A.weight"),
        ("base_model.model.txt_in.lora_up.weight", "transformer.context_embedder.lora_up.weight"),
        ("lora_unet_time_in_in_layer.alpha", "transformer.time_guidance_embed.linear_1.alpha"),
        ("lora_unet_final_layer_adaLN_modulation_1.lora_down.weight", "transformer.norm_out.linear.lora_down.weight"),
        (
            "transformer.time_guidance_embed.timestep_embedder.linear_2.lora_B.weight",
            "transformer.time_guidance_embed.linear_2.lora_B.weight",
        ),
        ("transformer.proj_out.lora_A.default.weight", "transformer.proj_out.lora_A.weight"),
    ],
)
def test_layers_outside_the_blocks_are_known_in_every_naming(theirs: str, ours: str) -> None:
    assert map_lora_key(theirs) == ours


@pytest.mark.parametrize(
    "key", ["transformer.transformer_blocks.0.attn.to_q.lora_A.weight", "img_in.weight", "img_in.lora_A.x", ""]
)
def test_other_keys_stay_as_they_are(key: str) -> None:
    assert map_lora_key(key) == key
