"""The declaration of a call: a method of its service, from which the client's call and the server's handler derive.

A service is a protocol, named as in its .proto file, that the node implements:

    rpc = Rpcs(pin_pb2)

    class PinService(Protocol):
        @rpc("ListPins", items=MAX_WANTED, size=limits.PIN_BYTES)
        def listed(self, artifact: Digest | None = None) -> AsyncGenerator[ListedPin, None]:
            \"""Every pin, or that of one artifact.\"""

The parameters are the fields of the request, with rules as the fields of a value have (`codec`); a dataclass that is
no field of the request is the whole of it. A `Caller`, which comes first, is no field: the server gives it. What is
returned is the answer: a dataclass, the one field of the message, or nothing; a stream has one in each message. Whether
a call is a stream is read from the contract, as is who may make it (`access`). `calls.call` makes the method of the
client.

Methods may raise any error of comity.trust.errors, which is sent to the caller as a status. Arguments are within
`limits`, and otherwise unchecked. Iterators are read with back-pressure, and closed when the caller disconnects. Data
iterators yield chunks of 64 KiB to 1 MiB, except the last. No method may block the event loop.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import cached_property, partial
from types import NoneType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, TypeVar, cast, get_args, get_type_hints

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from comity.wire import limits
from comity.wire.access import CALLER, Caller
from comity.wire.codec import MessageCodec, split_hint

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor

F = TypeVar("F", bound=Callable[..., Any])
# The kinds of handlers have different types, which gRPC's types cannot express.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_HANDLERS: Final[dict[tuple[bool, bool], Callable[..., Handler]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
}


class Codec(Protocol):
    """That of the messages of a call. `MessageCodec` and `OneOfCodec` are some."""

    def encode(self, value: Any, /) -> Any: ...

    def decode(self, message: Any, /) -> Any:
        """Raises Malformed."""


@dataclasses.dataclass(frozen=True)
class Rpc:
    """One call.

    Attributes:
        items: messages of a stream: the server sends no more, and the client reads no more.
        size: bytes of a stream that the client reads. How long the call may take follows from it.
        cut: whether the server ends a stream within `size`, rather than send what the client refuses.
        check: called with the arguments of a request; raises Malformed if they do not fit together.
        serve: answers the call at the implementation, where a method does not give one value for each message.
        answer_codec: returns the codec of the answer, where the annotation of the method is not known at runtime.
        raw: whether the messages of the answer are the bytes themselves, without a message around them.
    """

    descriptor: MethodDescriptor
    method: Callable[..., Any]
    items: int
    size: int = limits.ANSWER
    cut: bool = False
    check: Callable[..., object] | None = None
    serve: Callable[[Any, Any, Context], Any] | None = None
    answer_codec: Callable[[], Codec] | None = None
    raw: bool = False

    @property
    def path(self) -> str:
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @cached_property
    def request(self) -> RequestCodec:
        return RequestCodec(self.method, self._request, self.check)

    @cached_property
    def answer(self) -> Codec:
        if self.answer_codec is not None:
            return self.answer_codec()
        hint = _hints(self.method, ["return"])["return"]
        return _answer_codec(get_args(hint)[0] if self.descriptor.server_streaming else hint, self._answer)

    def stub(self, channel: grpc.aio.Channel) -> Any:
        """What makes the call on a channel."""
        sent, answered = self.descriptor.client_streaming, self.descriptor.server_streaming
        make = channel.stream_unary if sent else channel.unary_stream if answered else channel.unary_unary
        parse = None if self.raw else self._answer.FromString
        return make(self.path, request_serializer=self._request.SerializeToString, response_deserializer=parse)

    def handler(self, implementation: object) -> Handler:
        """What gRPC calls for it."""
        sent, answered = self.descriptor.client_streaming, self.descriptor.server_streaming
        serve = self.serve or (self._serve_stream if answered else self._serve_one)
        write = None if self.raw else self._answer.SerializeToString
        return _HANDLERS[sent, answered](partial(serve, implementation), self._request.FromString, write)

    def ask(self, implementation: object, request: Message) -> Any:
        """Call the method of an implementation with the arguments of a request. Raises Malformed."""
        arguments = self.request.decode(request)
        named = {name: arguments.pop(name) for name in self.request.named}
        return getattr(implementation, self.method.__name__)(*arguments.values(), **named)

    async def _serve_one(self, implementation: object, request: Message, context: Context) -> Any:
        return self.answer.encode(await self.ask(implementation, request))

    async def _serve_stream(self, implementation: object, request: Message, context: Context) -> AsyncIterator[Any]:
        items, size = self.items, self.size
        async with aclosing(self.ask(implementation, request)) as values:
            async for value in values:
                message = value if self.raw else self.answer.encode(value)
                items -= 1
                size -= message.ByteSize() if self.cut else 0
                if items < 0 or size < 0:
                    return
                yield message

    @cached_property
    def _request(self) -> type[Message]:
        return GetMessageClass(self.descriptor.input_type)

    @cached_property
    def _answer(self) -> type[Message]:
        return GetMessageClass(self.descriptor.output_type)


class Rpcs:
    """The calls of the service of a .proto file, which has one. It is the decorator of their methods."""

    def __init__(self, file: Any) -> None:
        self.service: ServiceDescriptor
        (self.service,) = file.DESCRIPTOR.services_by_name.values()
        self.declared: list[Rpc] = []

    def __call__(self, name: str, *, items: int = 1, **rules: Any) -> Callable[[F], F]:
        """Declare that a method is the call `name`; the rules are attributes of `Rpc`."""

        def declare(method: F) -> F:
            rpc = Rpc(self.service.methods_by_name[name], method, items, **rules)
            self.declared.append(rpc)
            _RPCS[method] = rpc
            return method

        return declare

    def served(self, name: str, **rules: Any) -> Callable[[F], F]:
        """Declare that a function serves the call `name`: with the implementation, the request and the context."""

        def declare(serve: F) -> F:
            return self(name, serve=serve, **rules)(serve)

        return declare


_RPCS: Final[dict[Callable[..., Any], Rpc]] = {}


def rpc_of(method: Callable[..., Any]) -> Rpc:
    """Returns the call that a method of a service, or a function that serves it, was declared to be."""
    return _RPCS[method]


class RequestCodec:
    """The codec of a request: of the arguments of a method.

    Attributes:
        whole: the parameter that is the whole request; empty if each is one of its fields.
        codec: the codec of that parameter, or of all arguments together.
        named: the parameters that are given by name.
    """

    def __init__(
        self, method: Callable[..., Any], message: type[Message], check: Callable[..., object] | None = None
    ) -> None:
        _, *parameters = inspect.signature(method).parameters.values()
        hints = _hints(method, [parameter.name for parameter in parameters])
        self.named = [each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]
        self._callers = [name for name, hint in hints.items() if hint is Caller]
        fields = [_field(each, hints[each.name]) for each in parameters if each.name not in self._callers]
        self._arguments = _class_of(method.__name__, fields)
        self.whole = fields[0][0] if len(fields) == 1 and _is_whole(*fields[0][:2], message) else ""
        self.codec: Codec = (
            _answer_codec(fields[0][1], message)
            if self.whole
            else MessageCodec(self._arguments, message, check and (lambda value: check(**vars(value))))
        )

    def encode(self, *arguments: Any, **named: Any) -> Any:
        given = self._arguments(*arguments, **named)
        return self.codec.encode(getattr(given, self.whole) if self.whole else given)

    def decode(self, message: Message) -> dict[str, Any]:
        """The arguments by their names, in order, first the caller where the method asks for it. Raises Malformed."""
        value = self.codec.decode(message)
        found = {self.whole: value} if self.whole else vars(value)
        return {name: CALLER.get() for name in self._callers} | found


class _NoAnswer:
    """The codec of an answer without fields."""

    def __init__(self, message: type[Message]) -> None:
        self._message = message

    def encode(self, value: None) -> Message:
        return self._message()

    def decode(self, message: Message) -> None:
        return None


class OneField:
    """The codec of an answer of which a call gives one field."""

    def __init__(self, hint: Any, message: type[Message]) -> None:
        self.message = message
        self._field = message.DESCRIPTOR.fields[0].name
        self._value = _class_of("Answer", [(self._field, hint, dataclasses.field())])
        self._codec: MessageCodec[Any, Any] = MessageCodec(self._value, message)

    def encode(self, value: Any) -> Any:
        return self._codec.encode(self._value(value))

    def decode(self, message: Message) -> Any:
        return getattr(self._codec.decode(message), self._field)


def _class_of(name: str, parameters: Sequence[tuple[str, Any, Any]]) -> type[Any]:
    """A class with a field for each parameter: its name, its type and its default. No code is compiled for it, which
    would take most of the time in which a client prepares a call."""
    names = [each for each, _, _ in parameters]
    defaults = {each: said.default for each, _, said in parameters if said.default is not dataclasses.MISSING}

    def __init__(self: Any, *given: Any, **named: Any) -> None:
        said = defaults | dict(zip(names, given, strict=False)) | named
        vars(self).update({each: said[each] for each in names})

    content = {"__init__": __init__, "__doc__": "Values of the parameters."}
    return dataclasses.make_dataclass(name, parameters, namespace=content, init=False, repr=False, eq=False)


def _answer_codec(hint: Any, message: type[Message]) -> Codec:
    kind, said = split_hint(hint)
    if kind in (None, NoneType):
        return _NoAnswer(message)
    given = next((each for each in said if getattr(each, "message", None) is message), None)
    if given is not None:
        return cast(Codec, given)
    if dataclasses.is_dataclass(kind):
        return MessageCodec(cast("type[Any]", kind), message)
    return OneField(hint, message)


def _is_whole(name: str, hint: Any, message: type[Message]) -> bool:
    """Whether a parameter is the whole request."""
    kind, said = split_hint(hint)
    has_codec = any(getattr(each, "message", None) is message for each in said)
    return has_codec or (dataclasses.is_dataclass(kind) and name not in message.DESCRIPTOR.fields_by_name)


def _field(parameter: inspect.Parameter, hint: Any) -> tuple[str, Any, Any]:
    needed = parameter.default is inspect.Parameter.empty
    return parameter.name, hint, dataclasses.field() if needed else dataclasses.field(default=parameter.default)


def _hints(method: Callable[..., Any], names: Sequence[str]) -> dict[str, Any]:
    """Some of the annotations of a method, by the names of its module."""
    some = SimpleNamespace(__annotations__={name: method.__annotations__[name] for name in names})
    return get_type_hints(some, method.__globals__, {}, include_extras=True)
