//! Proves possession of the key to which a token is bound: DPoP (RFC 9449), with ES256 (RFC 7518, 3.4).

use std::time::SystemTime;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::json;
use zeroize::Zeroizing;

/// The key, on the curve P-256.
pub(super) struct Key(EcdsaKeyPair);

impl Key {
    /// Reads a key in PEM, as `aws login` writes it: SEC 1 or PKCS #8.
    pub(super) fn read(pem: &str) -> Option<Self> {
        let lines = pem.lines().filter(|line| !line.starts_with("-----"));
        let text: Zeroizing<String> = Zeroizing::new(lines.map(str::trim).collect());
        let der = Zeroizing::new(STANDARD.decode(text.as_bytes()).ok()?);
        EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).ok().map(Self)
    }

    /// Signs for one POST request to `url`.
    pub(super) fn prove(&self, url: &str, now: SystemTime) -> Option<String> {
        // After a byte that announces both coordinates.
        let (x, y) = self.0.public_key().as_ref().get(1..).filter(|point| point.len() == 64)?.split_at(32);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        });
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
        let random = SystemRandom::new();
        let mut id = [0; 16];
        random.fill(&mut id).ok()?;
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let claims = json!({ "htm": "POST", "htu": url, "iat": seconds, "jti": URL_SAFE_NO_PAD.encode(id) });
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = self.0.sign(&random, message.as_bytes()).ok()?;
        Some(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
    use serde_json::Value;

    use super::*;

    /// From RFC 9500, 2.3: a key for tests, known to everybody.
    const PEM: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MHcCAQEEIObLW92AqkWunJXowVR2Z5/+yVPBaFHnEedDk5WJxk/BoAoGCCqGSM49\n\
        AwEHoUQDQgAEQiVI+I+3gv+17KN0RFLHKh5Vj71vc75eSOkyMsxFxbFsTNEMTLjV\n\
        uKFxOelIgsiZJXKZNCX0FBmrfpCkKklCcg==\n-----END EC PRIVATE KEY-----\n";

    #[test]
    fn a_proof_is_signed_for_one_request_by_the_key_that_it_names() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let key = Key::read(PEM).unwrap();
        let [one, other] = [(), ()].map(|()| key.prove("https://a.example/v1/token", now).unwrap());
        let parts: Vec<_> = one.split('.').collect();
        let [header, claims, signature] = parts[..] else { panic!("{one}") };
        let value =
            |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
        let (header, claims) = (value(header), value(claims));
        assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
        assert_eq!(header["jwk"]["x"], "QiVI-I-3gv-17KN0RFLHKh5Vj71vc75eSOkyMsxFxbE");
        assert_eq!(header["jwk"]["y"], "bEzRDEy41bihcTnpSILImSVymTQl9BQZq36QpCpJQnI");
        assert_eq!((&header["jwk"]["kty"], &header["jwk"]["crv"]), (&json!("EC"), &json!("P-256")));
        assert_eq!((&claims["htm"], &claims["htu"]), (&json!("POST"), &json!("https://a.example/v1/token")));
        assert_eq!(claims["iat"], 1_800_000_000);
        assert_ne!(claims["jti"], value(other.split('.').nth(1).unwrap())["jti"], "each is good once");

        let mut point = vec![4];
        point.extend(
            ["x", "y"]
                .map(|axis| URL_SAFE_NO_PAD.decode(header["jwk"][axis].as_str().unwrap()).unwrap())
                .concat(),
        );
        let (message, _) = one.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        assert!(verifier.verify(message.as_bytes(), &signature).is_ok());
        assert!(verifier.verify(message.to_uppercase().as_bytes(), &signature).is_err());
    }

    #[test]
    fn what_is_no_such_key_is_refused() {
        let other = PEM.replace("MHcC", "AAAA");
        for pem in ["", "-----BEGIN EC PRIVATE KEY-----", "!", other.as_str()] {
            assert!(Key::read(pem).is_none(), "{pem:?}");
        }
    }
}
