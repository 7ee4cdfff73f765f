// A kubelet CSR approver as most of those in Go are made: controller-runtime with its defaults (one worker, a cache of
// whole objects, no limit of its own on requests), client-go's UpdateApproval, and checks that need nothing but the
// request. It is only what `make bench-approver` compares with: it looks at no Node, so nobody should run it.
package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"strings"

	certificates "k8s.io/api/certificates/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	controllerruntime "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metrics "sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

type approver struct {
	cache client.Client
	api   kubernetes.Interface
}

func (a *approver) Reconcile(ctx context.Context, key controllerruntime.Request) (controllerruntime.Result, error) {
	var request certificates.CertificateSigningRequest
	if err := a.cache.Get(ctx, key.NamespacedName, &request); err != nil {
		return controllerruntime.Result{}, client.IgnoreNotFound(err)
	}
	if request.Spec.SignerName != certificates.KubeletServingSignerName || len(request.Status.Conditions) > 0 {
		return controllerruntime.Result{}, nil
	}
	if err := check(&request); err != nil {
		log.FromContext(ctx).Info("left pending", "because", err.Error())
		return controllerruntime.Result{}, nil
	}
	request.Status.Conditions = append(request.Status.Conditions, certificates.CertificateSigningRequestCondition{
		Type:    certificates.CertificateApproved,
		Status:  core.ConditionTrue,
		Reason:  "Checked",
		Message: "the request is about the node that asks",
	})
	requests := a.api.CertificatesV1().CertificateSigningRequests()
	_, err := requests.UpdateApproval(ctx, request.Name, &request, meta.UpdateOptions{})
	switch {
	case apierrors.IsConflict(err), apierrors.IsNotFound(err):
		// The cache will tell what has become of it.
		return controllerruntime.Result{}, nil
	case err != nil:
		return controllerruntime.Result{}, err
	}
	log.FromContext(ctx).Info("approved", "user", request.Spec.Username)
	return controllerruntime.Result{}, nil
}

func check(request *certificates.CertificateSigningRequest) error {
	block, _ := pem.Decode(request.Spec.Request)
	if block == nil {
		return errors.New("it is not PEM")
	}
	parsed, err := x509.ParseCertificateRequest(block.Bytes)
	switch {
	case err != nil:
		return err
	case !strings.HasPrefix(request.Spec.Username, "system:node:"):
		return errors.New("no node asks")
	case parsed.Subject.CommonName != request.Spec.Username:
		return errors.New("the subject is not who asks")
	case len(parsed.DNSNames)+len(parsed.IPAddresses) == 0:
		return errors.New("it names nothing")
	}
	node := strings.TrimPrefix(request.Spec.Username, "system:node:")
	for _, name := range parsed.DNSNames {
		if !strings.HasPrefix(name, node) {
			return errors.New("a name is not the node's")
		}
	}
	return nil
}

func run() error {
	controllerruntime.SetLogger(zap.New())
	config, err := controllerruntime.GetConfig()
	if err != nil {
		return err
	}
	api, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	// Nobody reads its metrics, and a port may be taken.
	options := controllerruntime.Options{Metrics: metrics.Options{BindAddress: "0"}}
	manager, err := controllerruntime.NewManager(config, options)
	if err != nil {
		return err
	}
	controller := controllerruntime.NewControllerManagedBy(manager).For(&certificates.CertificateSigningRequest{})
	if err := controller.Complete(&approver{cache: manager.GetClient(), api: api}); err != nil {
		return err
	}
	return manager.Start(controllerruntime.SetupSignalHandler())
}

func main() {
	if err := run(); err != nil {
		controllerruntime.Log.Error(err, "ended")
		os.Exit(1)
	}
}
