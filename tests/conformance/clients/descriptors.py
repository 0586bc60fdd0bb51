"""Message classes from a file of descriptors, for the clients in Python."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def classes(path):
    """Full name -> class."""
    pool = descriptor_pool.DescriptorPool()
    with open(path, "rb") as file:
        for each in descriptor_pb2.FileDescriptorSet.FromString(file.read()).file:
            pool.Add(each)
    return lambda name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
