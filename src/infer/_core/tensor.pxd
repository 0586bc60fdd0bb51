"""Codec of ModelInferRequest and ModelInferResponse, one cimport for its callers.

`decode_request` reads the message without knowing the model; `bind_inputs` then holds it against the model's
signature; `decode_contents` turns typed contents into raw; `encode_response_head` and `encode_raw_tag` write the reply.
All of it is nogil, may run on any thread, and answers a gRPC status with a text in ErrorText. Rules and codes: WIRE
4.2-4.4.
"""

from infer._core.tensor_bind cimport DEFERRED_BYTES, Binding, bind_inputs
from infer._core.tensor_contents cimport decode_contents
from infer._core.tensor_encode cimport OutputSlice, encode_prefix, encode_raw_tag, encode_response_head
from infer._core.tensor_encode cimport encode_text_parameter, raw_tag_bytes, response_head_bytes
from infer._core.tensor_request cimport DIGITS_BYTES, MAX_ID_BYTES, MAX_TENSORS, InferMessage, InputFields
from infer._core.tensor_request cimport decode_request, find_parameter, message_free, message_init
from infer._core.tensor_text cimport ERROR_TEXT_BYTES, ErrorText, clear_error, data_type_name, data_type_of, say
from infer._core.tensor_text cimport say_input, say_int, say_name, say_tensor
