"""Why the other pipelines of diffusers are not steered, class by class."""

from __future__ import annotations

_REASONS = {
    "it makes no images": """
        AceStepPipeline AudioDiffusionPipeline AudioLDM2Pipeline AudioLDMPipeline DanceDiffusionPipeline
        DiffusionGemmaPipeline LLaDA2Pipeline LongCatAudioDiTPipeline MusicLDMPipeline RFD4ProteinaPipeline
        SpectrogramDiffusionPipeline StableAudio3AudioToAudioPipeline StableAudio3InpaintPipeline StableAudio3Pipeline
        StableAudioPipeline""",
    "it takes no prompt, so that there is no negative one": """
        ConsistencyModelPipeline DDIMPipeline DDPMPipeline DiTPipeline KarrasVePipeline LDMPipeline
        LDMSuperResolutionPipeline MarigoldDepthPipeline MarigoldIntrinsicsPipeline MarigoldNormalsPipeline PNDMPipeline
        RePaintPipeline ScoreSdeVePipeline StableVideoDiffusionPipeline""",
    "it is guided by a picture and not by words": """
        PaintByExamplePipeline ShapEImg2ImgPipeline StableDiffusionImageVariationPipeline
        UnCLIPImageVariationPipeline VersatileDiffusionImageVariationPipeline""",
    "its denoiser is given image embeddings, which words are turned into by another pipeline": """
        KandinskyImg2ImgPipeline KandinskyInpaintPipeline KandinskyPipeline KandinskyV22ControlnetImg2ImgPipeline
        KandinskyV22ControlnetPipeline KandinskyV22Img2ImgPipeline KandinskyV22InpaintPipeline KandinskyV22Pipeline
        StableCascadeDecoderPipeline WuerstchenDecoderPipeline""",
    "it makes embeddings, which another pipeline turns into images": """
        FluxPriorReduxPipeline KandinskyPriorPipeline KandinskyV22PriorEmb2EmbPipeline KandinskyV22PriorPipeline
        StableCascadePriorPipeline WuerstchenPriorPipeline""",
    "it only calls other pipelines, one after the other": """
        KandinskyCombinedPipeline KandinskyImg2ImgCombinedPipeline KandinskyInpaintCombinedPipeline
        KandinskyV22CombinedPipeline KandinskyV22Img2ImgCombinedPipeline KandinskyV22InpaintCombinedPipeline
        StableCascadeCombinedPipeline VersatileDiffusionPipeline VisualClozePipeline WuerstchenCombinedPipeline""",
    "its denoiser runs in ONNX Runtime, where nothing can be hooked": """
        OnnxStableDiffusionImg2ImgPipeline OnnxStableDiffusionInpaintPipeline OnnxStableDiffusionPipeline
        OnnxStableDiffusionUpscalePipeline StableDiffusionOnnxPipeline""",
    "it enlarges or decodes latents that another pipeline has made": """
        HunyuanImageRefinerPipeline Kandinsky6SRPipeline LTX2DFRTemporalRefinePipeline LTX2LatentUpsamplePipeline
        LTX2VideoDiffusionDecodePipeline LTXLatentUpsamplePipeline StableDiffusionLatentUpscalePipeline
        StableDiffusionUpscalePipeline""",
    "it denoises pixels in stages, or tokens, which no look is decoded from": """
        AmusedImg2ImgPipeline AmusedInpaintPipeline AmusedPipeline IFImg2ImgPipeline IFImg2ImgSuperResolutionPipeline
        IFInpaintingPipeline IFInpaintingSuperResolutionPipeline IFPipeline IFSuperResolutionPipeline PRXPixelPipeline
        ShapEPipeline UnCLIPPipeline VQDiffusionPipeline""",
    "one of its steps evaluates the denoiser on other latents than its own": """
        CycleDiffusionPipeline SemanticStableDiffusionPipeline StableDiffusionAttendAndExcitePipeline
        StableDiffusionDiffEditPipeline StableDiffusionModelEditingPipeline StableDiffusionPanoramaPipeline
        StableDiffusionParadigmsPipeline StableDiffusionPix2PixZeroPipeline StableDiffusionSAGPipeline
        TextToVideoZeroPipeline TextToVideoZeroSDXLPipeline""",
    "the frames of a video are a batch of images to its scheduler": """
        I2VGenXLPipeline TextToVideoSDPipeline VideoToVideoSDPipeline""",
    "its latents are denoised part by part, each at a time of its own": """
        AnyFlowFARPipeline HeliosPipeline HeliosPyramidPipeline HunyuanVideoFramepackPipeline LTXConditionPipeline
        LTXI2VLongMultiPromptPipeline SkyReelsV2DiffusionForcingImageToVideoPipeline SkyReelsV2DiffusionForcingPipeline
        SkyReelsV2DiffusionForcingVideoToVideoPipeline""",
    "sound and pictures are denoised together": """
        Kandinsky6TI2VAPipeline LTX2ConditionPipeline LTX2DFRPipeline LTX2HDRPipeline LTX2ImageToVideoPipeline
        LTX2InContextPipeline LTX2Pipeline""",
    "its guidance is a component (a guider), which the guard does not reach into": """
        HunyuanImagePipeline HunyuanVideo15ImageToVideoPipeline HunyuanVideo15Pipeline MotifVideoImage2VideoPipeline
        MotifVideoPipeline""",
    "it takes one prompt a call, or fails with several, and was not measured with one": """
        AnimateDiffControlNetPipeline AnimateDiffSparseControlNetPipeline AnimateDiffVideoToVideoControlNetPipeline
        BriaFiboEditPipeline JoyImageEditPipeline JoyImageEditPlusPipeline QwenImageEditInpaintPipeline
        QwenImageEditPipeline QwenImageEditPlusPipeline QwenImageLayeredPipeline
        VisualClozeGenerationPipeline LucyEditPipeline WanVACEPipeline""",
    "diffusers has given it up (`pipelines/deprecated`), and no test covers it": """
        AltDiffusionImg2ImgPipeline AltDiffusionPipeline BlipDiffusionControlNetPipeline BlipDiffusionPipeline
        PIAPipeline StableDiffusionControlNetXSPipeline StableDiffusionGLIGENPipeline
        StableDiffusionGLIGENTextImagePipeline StableDiffusionLDM3DPipeline StableDiffusionXLControlNetXSPipeline
        UniDiffuserPipeline VersatileDiffusionDualGuidedPipeline VersatileDiffusionTextToImagePipeline""",
    "its autoencoder is a component of another name than `vae`, which looks are decoded by": """
        Kandinsky3Img2ImgPipeline Kandinsky3Pipeline LDMTextToImagePipeline""",
    "its prompt passes a second model of its own, which no test has built": """
        ConsisIDPipeline HiDreamImagePipeline HunyuanSkyreelsImageToVideoPipeline HunyuanVideoImageToVideoPipeline
        HunyuanVideoPipeline LongCatImageEditPipeline LongCatImagePipeline StableUnCLIPImg2ImgPipeline
        StableUnCLIPPipeline WanAnimatePipeline ZImageOmniPipeline""",
    "its latents are packed with statistics of the autoencoder, which looks are not decoded by": """
        Flux2KleinInpaintPipeline Flux2KleinKVPipeline Flux2KleinPipeline Flux2Pipeline""",
    "its own safety checker has to be loaded with it, and is not among what the tests build": """
        Cosmos2TextToImagePipeline Cosmos2VideoToWorldPipeline Cosmos2_5_PredictBasePipeline
        Cosmos2_5_TransferPipeline Cosmos3OmniPipeline CosmosTextToWorldPipeline CosmosVideoToWorldPipeline""",
    "it fails in this version of diffusers itself: it asks the transformer for a setting that it has not": """
        ChromaInpaintPipeline""",
    "its tokenizer needs sentencepiece, without which it was measured nowhere": """
        KolorsImg2ImgPipeline KolorsPAGPipeline KolorsPipeline""",
    "it generates a picture of the prompt in a language model, where the words of a negative are no embeddings": """
        GlmImagePipeline OmniGenPipeline""",
}

REFUSED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""The class of a pipeline to why it is not steered."""

_MODULAR = "it is modular, and has no steps of its own to look at"
_HINTS = {
    _MODULAR: "Use the ordinary pipeline of the same model.",
    "it only calls other pipelines, one after the other": "Attach the guard to the one that denoises, built by itself.",
    "its denoiser runs in ONNX Runtime, where nothing can be hooked": "Use the ordinary pipeline of the same model.",
}

OTHERWISE = "no test has shown where its negative goes"
"""Why a class that nothing is known of is not steered."""


def why_not(name: str) -> tuple[str, str | None]:
    """The reason for which a class is not steered, and a remedy where there is one."""
    modular = name.endswith("ModularPipeline") or name == "ModularPipeline"
    reason = _MODULAR if modular else REFUSED.get(name, OTHERWISE)
    return reason, _HINTS.get(reason)
