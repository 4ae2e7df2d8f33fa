package bus

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// certificate reports whether err is about a certificate, of either side.
func certificate(err error) bool {
	var verify *tls.CertificateVerificationError
	var alert tls.AlertError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verify) || errors.As(err, &alert) || errors.As(err, &unknown) || errors.As(err, &name) ||
		errors.As(err, &invalid)
}
