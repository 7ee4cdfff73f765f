// The load's clients inside the cluster, made of the libraries that real ones are made of. `witness ask` is a workload:
// it asks the API server as its service account, with one client that lives as long as the pod (client-go reloads the CA
// file and the token) and with a new one for every request. `witness serve` is an aggregated API server, which lets
// kube-apiserver in by extension-apiserver-authentication, as all of them do.
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// How often each of the two clients asks.
	pause = time.Second
	// How many pauses lie between two lines with the counts.
	countEvery = 4
	// An answer that takes longer than this is none.
	patience = 20 * time.Second
	// The port of the aggregated API server.
	port = 8443
	// Where its API is.
	place = "/apis/witness.keyplane.io/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	run := map[string]func(context.Context) error{"ask": ask, "serve": serve}
	if len(os.Args) != 2 || run[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: witness ask|serve")
		os.Exit(2)
	}
	if err := run[os.Args[1]](ctx); err != nil {
		fmt.Fprintln(os.Stderr, "witness:", err)
		os.Exit(1)
	}
}

func ask(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.Timeout = patience
	lasting, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	requests, failed := 0, 0
	count := func(who string, err error) {
		requests++
		if err != nil {
			failed++
			fmt.Printf("FAILED %d %s: %v\n", failed, who, err)
		}
	}
	for turn := 0; ctx.Err() == nil; turn++ {
		count("lasting client", get(ctx, lasting))
		count("new client", getAnew(ctx))
		if turn%countEvery == 0 {
			fmt.Printf("COUNT %d %d\n", requests, failed)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func get(ctx context.Context, client kubernetes.Interface) error {
	_, err := client.CoreV1().Namespaces().Get(ctx, "default", meta.GetOptions{})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// getAnew reads the CA and the token again, and connects again.
func getAnew(ctx context.Context) error {
	config, err := rest.InClusterConfig()
	if err != nil {
		return err
	}
	config.Timeout = patience
	// A dialler of its own keeps client-go from giving it a transport that it has already.
	config.Dial = (&net.Dialer{}).DialContext
	transport, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	defer transport.CloseIdleConnections()
	client, err := kubernetes.NewForConfigAndClient(config, transport)
	if err != nil {
		return err
	}
	return get(ctx, client)
}

func serve(ctx context.Context) error {
	codecs := serializer.NewCodecFactory(newScheme())
	config := server.NewRecommendedConfig(codecs)
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	serving := options.NewSecureServingOptions().WithLoopback()
	serving.BindPort = port
	// The APIService doesn't verify this certificate; it is made in memory.
	serving.ServerCert.PairName = ""
	serving.ServerCert.CertDirectory = ""
	if err := serving.MaybeDefaultWithSelfSignedCerts("witness", nil, []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		return err
	}
	if err := serving.ApplyTo(&config.SecureServing, &config.LoopbackClientConfig); err != nil {
		return err
	}
	authentication := options.NewDelegatingAuthenticationOptions()
	if err := authentication.ApplyTo(&config.Authentication, config.SecureServing, nil); err != nil {
		return err
	}
	if err := options.NewDelegatingAuthorizationOptions().ApplyTo(&config.Authorization); err != nil {
		return err
	}
	api, err := config.Complete().New("witness", server.NewEmptyDelegate())
	if err != nil {
		return err
	}
	mux := api.Handler.NonGoRestfulMux
	mux.HandleFunc(place, func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "application/json")
		fmt.Fprint(answer, `{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"witness.keyplane.io/v1","resources":[]}`)
	})
	// Says as whom the API server has come: a request that it could not vouch for is one of system:anonymous, or refused.
	mux.HandleFunc(place+"/whoami", func(answer http.ResponseWriter, asked *http.Request) {
		user, ok := request.UserFrom(asked.Context())
		if !ok {
			http.Error(answer, "no user", http.StatusUnauthorized)
			return
		}
		fmt.Fprintln(answer, user.GetName())
	})
	return api.PrepareRun().RunWithContext(ctx)
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	meta.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return scheme
}
