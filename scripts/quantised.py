"""Model folders as quantisation libraries write them, and what their weights stand for.

    from quantised import quantise_folder
    values = quantise_folder(folder, "nf4")     # in place; {name of a weight: fp32 tensor}

A kind is a row of KINDS: quantization_config, and a function from a weight's name and values to the tensors
that stand for it and their own values. Needs torch, safetensors and bitsandbytes.
"""
import glob, json, os
import torch
from safetensors import safe_open
from safetensors.torch import save_file


def bnb4(kind, nested, block=64):
    def quantise(name, w):
        import bitsandbytes.functional as F
        codes, state = F.quantize_4bit(w, blocksize=block, quant_type=kind, compress_statistics=nested)
        tensors = {name: codes}
        tensors.update({f"{name}.{k}": v for k, v in state.as_dict(packed=True).items()})
        absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset if nested else state.absmax
        flat = codes.flatten().int()
        code = state.code[torch.stack([flat >> 4, flat & 15], 1)].flatten()[: w.numel()]
        return tensors, (code * absmax.repeat_interleave(block)[: w.numel()]).reshape(w.shape)
    return quantise


def int8(name, w):
    import bitsandbytes.functional as F
    codes, scale, _ = F.int8_vectorwise_quant(w.to(torch.float16))
    module = name.removesuffix(".weight")
    return ({name: codes, f"{module}.SCB": scale, f"{module}.weight_format": torch.tensor(0, dtype=torch.uint8)},
            F.int8_vectorwise_dequant(codes, scale))


def bnb_config(**more):
    return dict(quant_method="bitsandbytes", llm_int8_threshold=6.0, llm_int8_skip_modules=None, **more)


KINDS = {
    "nf4": (bnb_config(load_in_4bit=True, load_in_8bit=False, bnb_4bit_quant_type="nf4",
                       bnb_4bit_use_double_quant=True), bnb4("nf4", True)),
    "fp4": (bnb_config(load_in_4bit=True, load_in_8bit=False, bnb_4bit_quant_type="fp4",
                       bnb_4bit_use_double_quant=False), bnb4("fp4", False, 128)),
    "int8": (bnb_config(load_in_4bit=False, load_in_8bit=True), int8),
}


def is_linear(name, w):
    layers = any(p in name for p in (".layers.", ".h.", "transformer.blocks"))
    return layers and name.endswith(".weight") and w.ndim == 2


def read_folder(folder):
    tensors = {}
    for path in sorted(glob.glob(f"{folder}/*.safetensors")):
        if os.path.basename(path).startswith("model"):
            with safe_open(path, "pt") as f:
                tensors.update({k: f.get_tensor(k) for k in f.keys()})
    return tensors


def quantise_folder(folder, kind, skip=()):
    """Rewrites the weights of the folder, and its config.json."""
    config, quantise = KINDS[kind]
    out, values = {}, {}
    for name, w in read_folder(folder).items():
        if is_linear(name, w) and not any(s in name for s in skip):
            tensors, values[name] = quantise(name, w)
            out.update(tensors)
        else:
            out[name] = w
    for path in glob.glob(f"{folder}/model*.safetensors*"):
        os.remove(path)
    save_file({k: v.contiguous() for k, v in out.items()}, f"{folder}/model.safetensors", {"format": "pt"})
    path = f"{folder}/config.json"
    said = json.load(open(path))
    said["quantization_config"] = config
    json.dump(said, open(path, "w"), indent=2)
    return values


def plain_values(folder, kind):
    """What the folder's linear weights would stand for, quantised; the folder is left alone."""
    return {name: KINDS[kind][1](name, w)[1] for name, w in read_folder(folder).items() if is_linear(name, w)}
