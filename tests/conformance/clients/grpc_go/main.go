// The steps of a file by grpc-go, with messages made from the file of descriptors. See scenario.py.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

type step struct {
	Name        string            `json:"name"`
	Path        string            `json:"path"`
	Request     string            `json:"request"`
	Reply       string            `json:"reply"`
	Kind        string            `json:"kind"`
	Requests    []json.RawMessage `json:"requests"`
	Metadata    [][2]string       `json:"metadata"`
	Timeout     float64           `json:"timeout"`
	Lockstep    bool              `json:"lockstep"`
	CancelAfter *int              `json:"cancel_after"`
}

type result struct {
	Replies  []json.RawMessage `json:"replies"`
	Code     uint32            `json:"code"`
	Message  string            `json:"message"`
	Initial  [][2]string       `json:"initial"`
	Trailing [][2]string       `json:"trailing"`
}

var kinds *protoregistry.Files

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func newMessage(name string) *dynamicpb.Message {
	found := must(kinds.FindDescriptorByName(protoreflect.FullName(name)))
	return dynamicpb.NewMessage(found.(protoreflect.MessageDescriptor))
}

func (r *result) keep(reply proto.Message) {
	content := must(protojson.MarshalOptions{UseProtoNames: true}.Marshal(reply))
	r.Replies = append(r.Replies, content)
}

func pairs(came metadata.MD) [][2]string {
	all := [][2]string{}
	for key, values := range came {
		for _, value := range values {
			if strings.HasSuffix(key, "-bin") {
				value = base64.StdEncoding.EncodeToString([]byte(value))
			}
			all = append(all, [2]string{key, value})
		}
	}
	return all
}

func run(conn *grpc.ClientConn, s step) result {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(s.Timeout*float64(time.Second)))
	defer cancel()
	for _, pair := range s.Metadata {
		value := pair[1]
		if strings.HasSuffix(pair[0], "-bin") {
			value = string(must(base64.StdEncoding.DecodeString(value)))
		}
		ctx = metadata.AppendToOutgoingContext(ctx, pair[0], value)
	}
	made := result{Replies: []json.RawMessage{}}
	requests := []proto.Message{}
	for _, content := range s.Requests {
		request := newMessage(s.Request)
		if err := protojson.Unmarshal(content, request); err != nil {
			log.Fatal(s.Name, err)
		}
		requests = append(requests, request)
	}
	var initial, trailing metadata.MD
	err := call(ctx, cancel, conn, s, requests, &made, &initial, &trailing)
	made.Code = uint32(status.Code(err))
	if err != nil {
		made.Message = status.Convert(err).Message()
	}
	made.Initial, made.Trailing = pairs(initial), pairs(trailing)
	return made
}

func call(ctx context.Context, cancel context.CancelFunc, conn *grpc.ClientConn, s step, requests []proto.Message,
	made *result, initial, trailing *metadata.MD) error {
	if s.Kind == "unary" {
		reply := newMessage(s.Reply)
		err := conn.Invoke(ctx, s.Path, requests[0], reply, grpc.Header(initial), grpc.Trailer(trailing))
		if err == nil {
			made.keep(reply)
		}
		return err
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{
		ServerStreams: s.Kind != "client", ClientStreams: s.Kind != "server"}, s.Path)
	if err != nil {
		return err
	}
	defer func() {
		*initial, _ = stream.Header()
		*trailing = stream.Trailer()
	}()
	receive := func() error {
		reply := newMessage(s.Reply)
		if err := stream.RecvMsg(reply); err != nil {
			return err
		}
		made.keep(reply)
		if s.CancelAfter != nil && *s.CancelAfter == len(made.Replies) {
			cancel()
		}
		return nil
	}
	for _, request := range requests {
		// io.EOF: the call has ended already, and RecvMsg has its status.
		if err := stream.SendMsg(request); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if s.Lockstep {
			if err := receive(); err != nil {
				return err
			}
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if err := receive(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if s.Kind == "client" {
			return nil
		}
	}
}

func transport(files []string) grpc.DialOption {
	if len(files) == 0 {
		return grpc.WithTransportCredentials(insecure.NewCredentials())
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(must(os.ReadFile(files[0])))
	if len(files) == 3 {
		config.Certificates = []tls.Certificate{must(tls.LoadX509KeyPair(files[1], files[2]))}
	}
	return grpc.WithTransportCredentials(credentials.NewTLS(config))
}

func main() {
	address, descriptors, stepsFile, resultsFile := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	described := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(must(os.ReadFile(descriptors)), described); err != nil {
		log.Fatal(err)
	}
	kinds = must(protodesc.NewFiles(described))
	var steps []step
	if err := json.Unmarshal(must(os.ReadFile(stepsFile)), &steps); err != nil {
		log.Fatal(err)
	}
	conn := must(grpc.NewClient(address, transport(os.Args[5:]), grpc.WithDefaultCallOptions(
		grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30))))
	results := map[string]result{}
	for _, s := range steps {
		results[s.Name] = run(conn, s)
	}
	if err := os.WriteFile(resultsFile, must(json.Marshal(results)), 0o644); err != nil {
		log.Fatal(err)
	}
}
