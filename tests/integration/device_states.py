"""A plug-in for gate 9 that says what the device's name asks for."""

from services.validator.challenges.device_state import DeviceAnswer, DeviceQuestion


async def answer(question: DeviceQuestion) -> DeviceAnswer:
    if question.subject.startswith("broken"):
        raise RuntimeError("the directory is away")
    return DeviceAnswer(allow=question.subject.startswith("healthy"), detail="as it was asked")
