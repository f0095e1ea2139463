"""A plug-in for gate 9 that says what the device's name asks for."""

from typing import Final

from services.validator.challenges.device_state import DeviceAnswer, DeviceQuestion

ACCOUNT: Final = "S-1-5-21-1004336348-1177238915-682003330-1104"


async def answer(question: DeviceQuestion) -> DeviceAnswer:
    if question.subject.startswith("broken"):
        raise RuntimeError("the directory is away")
    return DeviceAnswer(
        allow=question.subject.startswith("healthy"),
        detail="as it was asked",
        claims={"device_id": question.subject, "sid": ACCOUNT},
    )
