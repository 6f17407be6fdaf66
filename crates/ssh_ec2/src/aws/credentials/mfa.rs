//! The codes of MFA devices. (Pure.)

use crate::aws::credentials::sign_in::SignIn;
use crate::aws::error::AwsError;

/// Refuses a device that shows no codes, which the user could not answer with.
///
/// # Errors
///
/// [`AwsError::MfaSecurityKey`].
pub(crate) fn check_serial(serial: &str, sign_in: &SignIn) -> Result<(), AwsError> {
    // arn:aws:iam::123456789012:u2f/user/NAME/KEY
    if serial.contains(":u2f/") {
        return Err(AwsError::MfaSecurityKey { serial: serial.to_owned(), sign_in: sign_in.clone() });
    }
    Ok(())
}

/// The code in a typed text: six digits, with spaces anywhere, as some devices show them.
pub(crate) fn code(typed: &str) -> Option<String> {
    let code: String = typed.chars().filter(|character| !character.is_whitespace()).collect();
    (code.len() == DIGITS && code.bytes().all(|byte| byte.is_ascii_digit())).then_some(code)
}

/// The question, with the reason why it is asked again.
pub(crate) fn question(serial: &str, problem: Option<&AwsError>) -> String {
    let why = match problem {
        None => "",
        Some(AwsError::MfaRefused { .. }) => "AWS did not accept this code. ",
        Some(_) => "A code has six digits. ",
    };
    format!("{why}MFA code of {serial}: ")
}

/// The length of a code, from the documentation of STS: AssumeRole, TokenCode.
const DIGITS: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_six_digits_with_or_without_blanks() {
        for typed in ["123456", "123 456", " 12 34 56\t", "123\u{a0}456"] {
            assert_eq!(code(typed).as_deref(), Some("123456"), "{typed:?}");
        }
        let key = "cccjgjgkhcbbirdrfdnlnghhfgrtnnlgedjlftrbdeut";
        for typed in ["", "12345", "1234567", "12345a", "12-3456", "١٢٣٤٥٦", key] {
            assert_eq!(code(typed), None, "{typed:?}");
        }
    }

    #[test]
    fn security_keys_show_no_codes() {
        let check = |serial| check_serial(serial, &SignIn::Environment).is_ok();
        assert!(!check("arn:aws:iam::123456789012:u2f/user/you/key-ABC"));
        assert!(!check("arn:aws-cn:iam::123456789012:u2f/root-account-mfa-device"));
        assert!(check("arn:aws:iam::123456789012:mfa/u2f/you") && check("GAHT12345678"));
    }
}
