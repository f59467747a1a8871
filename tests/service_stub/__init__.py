"""A local stand-in for language-model services: two wire protocols, scripted faults, a bill."""

from tests.service_stub.billing import billed_in, digest_of
from tests.service_stub.faults import Faults
from tests.service_stub.process import ServiceStubProcess
from tests.service_stub.replies import Reply
from tests.service_stub.stub import ServiceStub

__all__ = ["Faults", "Reply", "ServiceStub", "ServiceStubProcess", "billed_in", "digest_of"]
